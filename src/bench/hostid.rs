//! Who this host is to a target: the NQN and identifier that nvme-cli keeps, the name that
//! open-iscsi keeps, else ones made from the machine id, so that
//! they are the same in every run.

use super::target::identity_of;
use crate::wire::iscsi::value::is_name;

/// A host's names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostId {
    /// Host NQN.
    pub nqn: String,
    /// HOSTID, never all zero.
    pub id: [u8; 16],
}

/// This machine's names. `nqn` overrides the NQN; the identifier is then made from it, since a target takes an NQN
/// with two identifiers for two hosts.
pub fn this_host(nqn: Option<&str>) -> HostId {
    if let Some(nqn) = nqn {
        return HostId { nqn: nqn.to_owned(), id: uuid_of(nqn) };
    }
    if let (Some(nqn), Some(id)) = (read("/etc/nvme/hostnqn"), read("/etc/nvme/hostid"))
        && let Ok(id) = uuid::Uuid::parse_str(&id)
    {
        return HostId { nqn, id: id.into_bytes() };
    }
    let id = uuid_of(&machine());
    HostId { nqn: format!("nqn.2014-08.org.nvmexpress:uuid:{}", uuid::Uuid::from_bytes(id)), id }
}

/// The text of a file, if it has any.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty())
}

/// What tells this machine from others.
fn machine() -> String {
    read("/etc/machine-id").or_else(|| read("/proc/sys/kernel/hostname")).unwrap_or_default()
}

/// This machine's iSCSI name: `name`, else the one that open-iscsi keeps, else one made from the machine id.
pub fn initiator_name(name: Option<&str>) -> String {
    if let Some(name) = name {
        return name.to_owned();
    }
    let kept = std::fs::read_to_string("/etc/iscsi/initiatorname.iscsi").unwrap_or_default();
    let kept = kept.lines().find_map(|line| line.trim().strip_prefix("InitiatorName=")).map(str::trim);
    if let Some(name) = kept.filter(|name| is_name(name)) {
        return name.to_owned();
    }
    let id = uuid_of(&machine());
    format!("iqn.2024-01.io.pollux:{}", uuid::Uuid::from_bytes(id))
}

/// A UUID (version 8, RFC 9562) that depends on nothing but `seed`.
fn uuid_of(seed: &str) -> [u8; 16] {
    let half = |salt: &str| identity_of(format!("pollux {salt} {seed}").as_bytes()).to_be_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half("a"));
    id[8..].copy_from_slice(&half("b"));
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fabrics::nqn_valid;

    #[test]
    fn names_are_stable_and_legal() {
        let host = this_host(None);
        assert_eq!(host, this_host(None));
        assert!(nqn_valid(&host.nqn) && host.id != [0; 16], "{host:?}");
        let named = this_host(Some("nqn.2024-01.lab:h1"));
        assert_eq!(named.nqn, "nqn.2024-01.lab:h1");
        assert_ne!(named.id, this_host(Some("nqn.2024-01.lab:h2")).id);
        assert_eq!(uuid::Uuid::from_bytes(named.id).get_version_num(), 8);
        let name = initiator_name(None);
        assert!(is_name(&name) && name == initiator_name(None), "{name}");
        assert_eq!(initiator_name(Some("iqn.2024-01.lab:h1")), "iqn.2024-01.lab:h1");
    }
}
