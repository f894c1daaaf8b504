//! Sockets, the ring, and the shard's clock: everything that talks to the kernel, and the only place with unsafe code.

#![allow(unsafe_code)] // system calls that neither std nor socket2 wraps; each block gives its reason

pub mod affinity;
pub mod arrival;
pub mod buffer;
pub mod connect;
pub mod deadline;
pub mod descriptors;
pub mod fence;
pub mod heap;
pub mod listener;
pub mod option;
pub mod prefetch;
pub mod privileges;
pub mod process;
pub mod ring;
pub mod roster;
pub mod socket;
pub mod source;
pub mod timer;
