//! Which CPUs the process may use (`sched_getaffinity(2)`, cgroup v2 `cpu.max`), and pinning to one of them.

use core_affinity::CoreId;

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
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A quota of any group above counts too.
    std::path::Path::new(path)
        .ancestors()
        .filter_map(|group| {
            let relative = group.strip_prefix("/").unwrap_or(group);
            std::fs::read_to_string(
                std::path::Path::new("/sys/fs/cgroup")
                    .join(relative)
                    .join("cpu.max"),
            )
            .ok()
        })
        .filter_map(|text| parse_quota(&text))
        .min()
}

/// `quota period` in microseconds, or `max period`.
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

/// Pins the calling thread to `cpu`. False when the kernel refuses.
pub fn pin_to(cpu: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_round_up() {
        let cases = [
            ("max 100000\n", None),
            ("150000 100000\n", Some(2)),
            ("50000 100000\n", Some(1)),
            ("junk", None),
            ("1 0", None),
        ];
        for (text, cpus) in cases {
            assert_eq!(parse_quota(text), cpus, "{text}");
        }
    }
}
