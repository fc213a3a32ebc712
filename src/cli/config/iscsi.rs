//! What `[iscsi.options]` and the lists below `[iscsi]` declare to exist.

use super::declare::address;
use super::read::{ConfigError, Section};
use crate::cluster::iscsi::{
    AuthGroup, Chap, FIRST_BURST_MAX, Initiator, InitiatorGroup, LUNS_MAX, Map, Netmask, Options, PortalGroup,
    QUEUE_DEPTH_MAX, Secret,
};
use crate::cluster::{DeclaredIscsi, LunSpec, TargetSpec};

/// Words for the settings of CHAP that mean something.
const CHAPS: &[(&str, Chap)] = &[
    ("offered", Chap { disabled: false, required: false, mutual: false, group: 0 }),
    ("none", Chap { disabled: true, required: false, mutual: false, group: 0 }),
    ("required", Chap { disabled: false, required: true, mutual: false, group: 0 }),
    ("mutual", Chap { disabled: false, required: true, mutual: true, group: 0 }),
];

/// Everything that `[iscsi]` declares. Whoever calls finishes the section.
pub fn declared(s: &Section<'_>) -> Result<DeclaredIscsi, ConfigError> {
    let each = |key| s.sections(key).map(Vec::into_iter);
    Ok(DeclaredIscsi {
        options: options(s)?,
        portal_groups: each("portal_groups")?.map(portal_group).collect::<Result<_, _>>()?,
        initiator_groups: each("initiator_groups")?.map(initiator_group).collect::<Result<_, _>>()?,
        auth_groups: each("auth_groups")?.map(auth_group).collect::<Result<_, _>>()?,
        targets: each("targets")?.map(target).collect::<Result<_, _>>()?,
    })
}

fn options(whole: &Section<'_>) -> Result<Option<Options>, ConfigError> {
    let s = whole.section("options")?;
    let d = Options::default();
    let small = |n: Option<u64>, default: u16| n.map_or(default, |n| n as u16);
    let first_burst = s.bytes("first_burst_length", 512..=u64::from(FIRST_BURST_MAX))?;
    let most = s.number("max_queue_depth", 2..=u64::from(QUEUE_DEPTH_MAX))?;
    let connections = s.number("max_connections_per_session", 1..=16)?;
    let options = Options {
        node_base: s.text("node_base")?.map_or(d.node_base, str::to_owned),
        max_sessions: s.number("max_sessions", 1..=1024)?.map_or(d.max_sessions, |n| n as u32),
        max_connections_per_session: small(connections, d.max_connections_per_session),
        max_queue_depth: small(most, d.max_queue_depth),
        max_r2t_per_connection: small(s.number("max_r2t_per_connection", 1..=256)?, d.max_r2t_per_connection),
        first_burst_length: first_burst.map_or(d.first_burst_length, |n| n as u32),
        immediate_data: s.flag("immediate_data")?.unwrap_or(d.immediate_data),
        default_time2wait: small(s.number("default_time2wait", 0..=3600)?, d.default_time2wait),
        default_time2retain: small(s.number("default_time2retain", 0..=3600)?, d.default_time2retain),
        nop_in_interval: small(s.number("nop_in_interval", 0..=3600)?, d.nop_in_interval),
        nop_timeout: small(s.number("nop_timeout", 1..=3600)?, d.nop_timeout),
        discovery_auth: chap(&s, "discovery_chap", "discovery_chap_group")?,
        ..Options::default()
    };
    options.check().map_err(|e| s.wrong("node_base", e.to_string()))?;
    s.finish()?;
    Ok(whole.has("options").then_some(options))
}

fn chap(s: &Section<'_>, how: &'static str, group: &'static str) -> Result<Chap, ConfigError> {
    let chap = s.word(how, CHAPS)?.unwrap_or_default();
    let group = s.number(group, 0..=u64::from(u32::MAX))?.unwrap_or(0) as u32;
    Ok(Chap { group, ..chap })
}

fn tag(s: &Section<'_>, most: u32) -> Result<u32, ConfigError> {
    let tag = s.number("tag", 1..=u64::from(most))?;
    s.required("tag", tag).map(|tag| tag as u32)
}

fn portal_group(s: Section<'_>) -> Result<PortalGroup, ConfigError> {
    let group = PortalGroup {
        tag: tag(&s, u32::from(u16::MAX))? as u16,
        portals: s.list("portals", address)?,
        private: s.flag("private")?.unwrap_or(false),
        started: true,
        auth: None,
    };
    s.required("portals", (!group.portals.is_empty()).then_some(()))?;
    s.finish().map(|()| group)
}

fn initiator_group(s: Section<'_>) -> Result<InitiatorGroup, ConfigError> {
    let group = InitiatorGroup {
        tag: tag(&s, u32::MAX)?,
        initiators: s.list("initiators", Initiator::new)?,
        netmasks: s.list("netmasks", Netmask::new)?,
    };
    s.required("initiators", (!group.initiators.is_empty()).then_some(()))?;
    s.required("netmasks", (!group.netmasks.is_empty()).then_some(()))?;
    s.finish().map(|()| group)
}

fn auth_group(s: Section<'_>) -> Result<AuthGroup, ConfigError> {
    let secrets = s.sections("secrets")?.into_iter().map(secret).collect::<Result<_, _>>()?;
    let group = AuthGroup { tag: tag(&s, u32::MAX)?, secrets };
    s.finish().map(|()| group)
}

fn secret(s: Section<'_>) -> Result<Secret, ConfigError> {
    let text = |key| Ok::<_, ConfigError>(s.text(key)?.map(str::to_owned));
    let secret = Secret {
        user: s.required("user", text("user")?)?,
        secret: s.required("secret", text("secret")?)?,
        mutual: match (text("muser")?, text("msecret")?) {
            (Some(user), Some(secret)) => Some((user, secret)),
            (None, None) => None,
            _ => return Err(s.wrong("muser", "goes together with msecret")),
        },
    };
    secret.check().map_err(|e| s.wrong("secret", e.to_string()))?;
    s.finish().map(|()| secret)
}

fn target(s: Section<'_>) -> Result<TargetSpec, ConfigError> {
    let spec = TargetSpec {
        name: s.required("name", s.text("name")?)?.to_owned(),
        alias: s.text("alias")?.unwrap_or_default().to_owned(),
        maps: s.list("maps", map)?,
        luns: s.sections("luns")?.into_iter().map(lun).collect::<Result<_, _>>()?,
        queue_depth: s.number("queue_depth", 1..=u64::from(QUEUE_DEPTH_MAX))?.unwrap_or(64) as u32,
        auth: chap(&s, "chap", "chap_group")?,
        header_digest: s.flag("header_digest")?.unwrap_or(false),
        data_digest: s.flag("data_digest")?.unwrap_or(false),
    };
    s.required("luns", (!spec.luns.is_empty()).then_some(()))?;
    Options::default().full_name(&spec.name).map_err(|e| s.wrong("name", e.to_string()))?;
    s.finish().map(|()| spec)
}

/// `PORTAL-GROUP:INITIATOR-GROUP`.
fn map(text: &str) -> Result<Map, &'static str> {
    let parts = text.split_once(':').and_then(|(pg, ig)| Some((pg.parse().ok()?, ig.parse().ok()?)));
    let (portal_group, initiator_group) =
        parts.ok_or("must be the tags of a portal and an initiator group, like 1:2")?;
    Ok(Map { portal_group, initiator_group })
}

fn lun(s: Section<'_>) -> Result<LunSpec, ConfigError> {
    let spec = LunSpec {
        bdev: s.required("bdev", s.text("bdev")?)?.to_owned(),
        lun: s.number("lun", 0..=u64::from(LUNS_MAX) - 1)?.map(|n| n as u16),
    };
    s.finish().map(|()| spec)
}
