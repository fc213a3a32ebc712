//! The sections that declare what is to exist: `[[bdevs]]`, `[[stores]]`, `[[volumes]]`, `[transport]`, `[[subsystems]]`;
//! those of iSCSI are in a file of their own.

use super::read::{ConfigError, Section};
use crate::cluster::{
    BdevName, Declared, DeclaredBdev, DeclaredIscsi, DeclaredStore, DeclaredSubsystem, DeclaredVolume, DelayTimes,
    DeviceSpec, FileEngine, FileSpec, MadeOf, NamespaceSpec, Nqn, NvmeSpec, StoreName, Subsystem, Transport,
    VOLUME_BYTES_MAX, Visibility, VolumeName,
};
use crate::device::nvme::PciAddress;
use std::net::SocketAddr;
use uuid::Uuid;

#[derive(Clone, Copy)]
enum Kind {
    Malloc,
    Null,
    Aio,
    Uring,
    Nvme,
    Delay,
    Error,
}

const KINDS: &[(&str, Kind)] = &[
    ("malloc", Kind::Malloc),
    ("null", Kind::Null),
    ("aio", Kind::Aio),
    ("uring", Kind::Uring),
    ("nvme", Kind::Nvme),
    ("delay", Kind::Delay),
    ("error", Kind::Error),
];

/// Everything the file declares.
pub fn declared(whole: &Section<'_>) -> Result<Declared, ConfigError> {
    let each = |key| whole.sections(key).map(Vec::into_iter);
    Ok(Declared {
        bdevs: each("bdevs")?.map(bdev).collect::<Result<_, _>>()?,
        stores: each("stores")?.map(store).collect::<Result<_, _>>()?,
        volumes: each("volumes")?.map(volume).collect::<Result<_, _>>()?,
        transport: transport(whole)?,
        subsystems: each("subsystems")?.map(subsystem).collect::<Result<_, _>>()?,
        iscsi: DeclaredIscsi::default(),
    })
}

fn bdev(s: Section<'_>) -> Result<DeclaredBdev, ConfigError> {
    let name = s.parsed("name", BdevName::new)?;
    let name = s.required("name", name)?;
    let uuid = s.parsed("uuid", Uuid::try_parse)?;
    let kind = s.word("type", KINDS)?;
    let made_of = match s.required("type", kind)? {
        Kind::Malloc => {
            let (block_size, blocks) = blocks(&s)?;
            MadeOf::Medium(DeviceSpec::Malloc { block_size, blocks })
        }
        Kind::Null => {
            let (block_size, blocks) = blocks(&s)?;
            MadeOf::Medium(DeviceSpec::Null { block_size, blocks })
        }
        Kind::Aio => MadeOf::Medium(file(&s, FileEngine::Aio)?),
        Kind::Uring => MadeOf::Medium(file(&s, FileEngine::Uring)?),
        Kind::Nvme => MadeOf::Medium(nvme(&s)?),
        Kind::Delay => delay(&s)?,
        Kind::Error => MadeOf::Fault(s.required("base", s.text("base")?)?.to_owned()),
    };
    s.finish()?;
    Ok(DeclaredBdev { name, uuid, made_of })
}

fn block_size(s: &Section<'_>) -> Result<Option<u32>, ConfigError> {
    match s.number("block_size", 512..=4096)? {
        None => Ok(None),
        Some(512) => Ok(Some(512)),
        Some(4096) => Ok(Some(4096)),
        Some(_) => Err(s.wrong("block_size", "must be 512 or 4096")),
    }
}

/// Block size and number of blocks of a device that is made of a size.
fn blocks(s: &Section<'_>) -> Result<(u32, u64), ConfigError> {
    let block = block_size(s)?.unwrap_or(4096);
    let size = s.bytes("size", 4096..=i64::MAX as u64)?;
    let size = s.required("size", size)?;
    if !size.is_multiple_of(u64::from(block)) {
        return Err(s.wrong("size", format!("must be a multiple of the block size, {block}")));
    }
    Ok((block, size / u64::from(block)))
}

fn file(s: &Section<'_>, engine: FileEngine) -> Result<DeviceSpec, ConfigError> {
    Ok(DeviceSpec::File(FileSpec {
        engine,
        path: s.required("filename", s.text("filename")?)?.to_owned(),
        block_size: block_size(s)?,
        read_only: s.flag("read_only")?.unwrap_or(false),
    }))
}

fn nvme(s: &Section<'_>) -> Result<DeviceSpec, ConfigError> {
    let address = s.parsed("address", str::parse::<PciAddress>)?;
    Ok(DeviceSpec::Nvme(NvmeSpec {
        address: s.required("address", address)?.to_string(),
        nsid: s.number("nsid", 1..=u64::from(u32::MAX - 1))?.map(|n| n as u32),
        unsafe_noiommu: s.flag("unsafe_noiommu")?.unwrap_or(false),
    }))
}

fn delay(s: &Section<'_>) -> Result<MadeOf, ConfigError> {
    let us = |key, least: u64| Ok::<u64, ConfigError>(s.number(key, least..=3_600_000_000)?.unwrap_or(least));
    let (read_avg_us, write_avg_us) = (us("read_us", 0)?, us("write_us", 0)?);
    let times = DelayTimes {
        read_avg_us,
        read_p99_us: us("read_p99_us", read_avg_us)?,
        write_avg_us,
        write_p99_us: us("write_p99_us", write_avg_us)?,
    };
    Ok(MadeOf::Delay(s.required("base", s.text("base")?)?.to_owned(), times))
}

fn store(s: Section<'_>) -> Result<DeclaredStore, ConfigError> {
    let name = s.parsed("name", StoreName::new)?;
    let store = DeclaredStore {
        name: s.required("name", name)?,
        bdev: s.required("bdev", s.text("bdev")?)?.to_owned(),
        format: s.flag("format")?.unwrap_or(false),
    };
    s.finish().map(|()| store)
}

fn volume(s: Section<'_>) -> Result<DeclaredVolume, ConfigError> {
    let name = s.parsed("name", VolumeName::new)?;
    let bytes = s.bytes("size", 4096..=VOLUME_BYTES_MAX)?;
    let volume = DeclaredVolume {
        store: s.required("store", s.text("store")?)?.to_owned(),
        name: s.required("name", name)?,
        bytes: s.required("size", bytes)?,
        thin: s.flag("thin")?.unwrap_or(true),
    };
    if !volume.bytes.is_multiple_of(4096) {
        return Err(s.wrong("size", "must be a multiple of 4096"));
    }
    s.finish().map(|()| volume)
}

fn transport(whole: &Section<'_>) -> Result<Option<Transport>, ConfigError> {
    let s = whole.section("transport")?;
    let mut t = Transport::default();
    let small = |n: Option<u64>, default| n.map_or(default, |n| n as u32);
    t.max_queue_depth = small(s.number("max_queue_depth", 2..=1024)?, t.max_queue_depth);
    t.max_io_qpairs_per_ctrlr = small(s.number("max_io_qpairs_per_ctrlr", 1..=128)?, t.max_io_qpairs_per_ctrlr);
    t.in_capsule_data_size = small(s.bytes("in_capsule_data_size", 0..=65536)?, t.in_capsule_data_size);
    t.max_io_size = small(s.bytes("max_io_size", 4096..=1 << 20)?, t.max_io_size);
    t.max_aq_depth = small(s.number("max_aq_depth", 32..=4096)?, t.max_aq_depth);
    t.c2h_success = s.flag("c2h_success")?.unwrap_or(t.c2h_success);
    if !t.in_capsule_data_size.is_multiple_of(16) {
        return Err(s.wrong("in_capsule_data_size", "must be a multiple of 16"));
    }
    if !t.max_io_size.is_power_of_two() {
        return Err(s.wrong("max_io_size", "must be a power of two"));
    }
    s.finish()?;
    Ok(whole.has("transport").then_some(t))
}

fn subsystem(s: Section<'_>) -> Result<DeclaredSubsystem, ConfigError> {
    let nqn = s.parsed("nqn", Nqn::new)?;
    let d = Subsystem::new(s.required("nqn", nqn)?);
    let small = |n: Option<u64>, default| n.map_or(default, |n| n as u16);
    let subsystem = Subsystem {
        serial: s.text("serial")?.map_or(d.serial.clone(), str::to_owned),
        model: s.text("model")?.map_or(d.model.clone(), str::to_owned),
        max_namespaces: s.number("max_namespaces", 1..=1024)?.map_or(d.max_namespaces, |n| n as u32),
        allow_any_host: s.flag("allow_any_host")?.unwrap_or(d.allow_any_host),
        min_cntlid: small(s.number("min_cntlid", 1..=0xffef)?, d.min_cntlid),
        max_cntlid: small(s.number("max_cntlid", 1..=0xffef)?, d.max_cntlid),
        ..d
    };
    subsystem.check().map_err(|e| s.wrong("nqn", e.to_string()))?;
    let declared = DeclaredSubsystem {
        subsystem,
        hosts: s.list("hosts", Nqn::new)?,
        namespaces: s.sections("namespaces")?.into_iter().map(namespace).collect::<Result<_, _>>()?,
        listeners: s.list("listeners", address)?,
    };
    s.finish().map(|()| declared)
}

/// `ADDRESS:PORT`, with brackets around an IPv6 address.
pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let addr: SocketAddr = text.parse().map_err(|_| "must be ADDRESS:PORT, like 127.0.0.1:4420 or [::1]:4420")?;
    if addr.port() == 0 { Err("must have a port other than 0") } else { Ok(addr) }
}

fn namespace(s: Section<'_>) -> Result<NamespaceSpec, ConfigError> {
    let spec = NamespaceSpec {
        bdev: s.required("bdev", s.text("bdev")?)?.to_owned(),
        nsid: s.number("nsid", 1..=1024)?.map(|n| n as u32),
        uuid: s.parsed("uuid", Uuid::try_parse)?,
        visible: match (s.has("visible_to"), s.list("visible_to", Nqn::new)?) {
            (true, hosts) => Visibility::Only(hosts.into_iter().collect()),
            (false, _) => Visibility::All,
        },
        ..NamespaceSpec::default()
    };
    s.finish().map(|()| spec)
}
