//! The list of CPUs that reactors are pinned to, as an operator writes it: `0`, `0-3`, `1,3`, `0-1,4`.

use crate::base::limits::CORES_MAX;

/// Why a CPU list was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CpuListError {
    /// A part is neither a number nor a range `low-high`.
    #[error("'{0}' is neither a CPU number nor a range like 0-3")]
    Syntax(Box<str>),
    /// A range runs backwards.
    #[error("range '{0}' ends before it begins")]
    Backwards(Box<str>),
    /// A CPU is named twice.
    #[error("CPU {0} is named twice")]
    Twice(usize),
    /// More CPUs than reactors a node may have.
    #[error("more than {CORES_MAX} CPUs")]
    TooMany,
    /// The process may not run on this CPU (it does not exist, or an affinity mask or cpuset excludes it).
    #[error("CPU {0} is not available to this process")]
    Unavailable(usize),
}

/// Reads a CPU list. The order is kept: the first CPU named is reactor 0's.
pub fn parse_cpus(list: &str) -> Result<Vec<usize>, CpuListError> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let syntax = || CpuListError::Syntax(part.into());
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let low: usize = low.trim().parse().map_err(|_| syntax())?;
        let high: usize = high.trim().parse().map_err(|_| syntax())?;
        if high < low {
            return Err(CpuListError::Backwards(part.into()));
        }
        if high - low >= CORES_MAX {
            return Err(CpuListError::TooMany);
        }
        for cpu in low..=high {
            if cpus.contains(&cpu) {
                return Err(CpuListError::Twice(cpu));
            }
            cpus.push(cpu);
        }
    }
    if cpus.len() > CORES_MAX {
        return Err(CpuListError::TooMany);
    }
    Ok(cpus)
}

/// Refuses CPUs this process can not be pinned to.
pub fn check_cpus(cpus: &[usize]) -> Result<(), CpuListError> {
    let there = core_affinity::get_core_ids().unwrap_or_default();
    match cpus.iter().find(|cpu| there.iter().all(|t| t.id != **cpu)) {
        Some(cpu) => Err(CpuListError::Unavailable(*cpu)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_operators_write_them() {
        assert_eq!(parse_cpus("0").unwrap(), [0]);
        assert_eq!(parse_cpus("0-3").unwrap(), [0, 1, 2, 3]);
        assert_eq!(parse_cpus("3,1").unwrap(), [3, 1]);
        assert_eq!(parse_cpus("0-1, 4").unwrap(), [0, 1, 4]);
        for bad in ["", "a", "1-", "-1", "1,,2", "1 2", "0x3"] {
            assert!(matches!(parse_cpus(bad), Err(CpuListError::Syntax(_))), "{bad}");
        }
        assert_eq!(parse_cpus("3-1"), Err(CpuListError::Backwards("3-1".into())));
        assert_eq!(parse_cpus("0-2,1"), Err(CpuListError::Twice(1)));
        assert_eq!(parse_cpus("0-99999999999"), Err(CpuListError::TooMany));
        assert_eq!(parse_cpus("0-40,50-90"), Err(CpuListError::TooMany));
        assert_eq!(check_cpus(&[0]), Ok(()));
        assert_eq!(check_cpus(&[0, 4095]), Err(CpuListError::Unavailable(4095)));
    }
}
