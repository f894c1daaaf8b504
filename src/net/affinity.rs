//! Which CPUs the process may use (`sched_getaffinity(2)`, the quota of its cgroup), and pinning to one of them.

use std::fs;
use std::path::Path;

use core_affinity::CoreId;

/// Where cgroups are mounted (cgroups(7)).
const CGROUPS: &str = "/sys/fs/cgroup";

/// CPUs that a mask has places for (`CPU_SET(3)`).
const CPU_SETSIZE: usize = 1024;

/// The CPUs of the process's affinity mask, in ascending order; empty when the kernel does not say.
pub fn usable_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    cpus.sort_unstable();
    cpus
}

/// Whole CPUs that the cgroup's quota amounts to, rounded up; `None` without a quota.
pub fn quota_cpus() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .filter_map(|group| quota_of(group, Path::new(CGROUPS)))
        .min()
}

/// The smallest quota of one of the process's groups, `number:controllers:path`, and those above it.
fn quota_of(group: &str, mount: &Path) -> Option<usize> {
    let (_, group) = group.split_once(':')?;
    let (controllers, path) = group.split_once(':')?;
    let is_v2 = controllers.is_empty();
    if !is_v2 && !controllers.split(',').any(|controller| controller == "cpu") {
        return None;
    }
    let quota_in = |directory: &Path| {
        let read = |file| fs::read_to_string(directory.join(file)).ok();
        parse_quota(&if is_v2 {
            read("cpu.max")?
        } else {
            format!(
                "{} {}",
                read("cpu.cfs_quota_us")?.trim(),
                read("cpu.cfs_period_us")?
            )
        })
    };
    // With cgroup v1 the controller's own mount, or the link with its name to one that it shares.
    let mount = if is_v2 {
        mount.to_owned()
    } else {
        mount.join("cpu")
    };
    // Seen from inside of a container, its own group is the mount itself.
    let ancestors = Path::new(path).ancestors();
    ancestors
        .filter_map(|above| quota_in(&mount.join(above.strip_prefix("/").unwrap_or(above))))
        .min()
}

/// `quota period` in microseconds; a quota of `max` or -1 is none.
fn parse_quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

/// The CPUs that the shards run on by default: those of the mask, as many as the quota amounts to. At least one place, which is not
/// pinned where the kernel names no CPU.
pub fn default_cpus() -> Vec<Option<usize>> {
    let usable = usable_cpus();
    let count = usable.len().min(quota_cpus().unwrap_or(usize::MAX)).max(1);
    (0..count).map(|shard| usable.get(shard).copied()).collect()
}

/// Pins the calling thread to `cpu`. False when the process may not use it, or the kernel refuses.
pub fn pin_to(cpu: usize) -> bool {
    // The crate panics at a number that the mask has no place for.
    cpu < CPU_SETSIZE && core_affinity::set_for_current(CoreId { id: cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_a_cpu_panics() {
        for cpu in [CPU_SETSIZE, usize::MAX] {
            assert!(!pin_to(cpu), "{cpu}");
        }
    }

    #[test]
    fn quotas_round_up() {
        let cases = [
            ("max 100000\n", None),
            ("150000 100000\n", Some(2)),
            ("50000 100000\n", Some(1)),
            ("-1 100000\n", None),
            ("junk", None),
            ("1 0", None),
        ];
        for (text, cpus) in cases {
            assert_eq!(parse_quota(text), cpus, "{text}");
        }
    }

    #[test]
    fn both_versions_of_cgroups_count_with_all_groups_above() {
        let mount = std::env::temp_dir().join(format!("ringlane-cgroup-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = mount.join(file);
            fs::create_dir_all(path.parent().expect("it is in the mount")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write("a/cpu.max", "300000 100000\n");
        write("a/b/cpu.max", "max 100000\n");
        write("cpu/cpu.cfs_quota_us", "-1\n");
        write("cpu/cpu.cfs_period_us", "100000\n");
        write("cpu/c/cpu.cfs_quota_us", "150000\n");
        write("cpu/c/cpu.cfs_period_us", "100000\n");
        let cases = [
            ("0::/a/b", Some(3)),
            ("0::/elsewhere", None),
            ("4:cpu,cpuacct:/c/d", Some(2)),
            ("4:cpuacct,cpu:/", None),
            ("5:cpuset:/c", None),
            ("junk", None),
        ];
        for (group, cpus) in cases {
            assert_eq!(quota_of(group, &mount), cpus, "{group}");
        }
        fs::remove_dir_all(&mount).expect("it is ours");
    }
}
