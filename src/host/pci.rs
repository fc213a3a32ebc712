//! PCI functions: their address, what they are and who drives them.

use super::root::Root;
use std::fmt;
use std::str::FromStr;

/// Where the kernel lists every PCI function.
pub const DEVICES: &str = "sys/bus/pci/devices";

/// Domain, bus, device and function: `0000:00:03.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// 16 bits on a bus of the firmware's; controllers that make their own (Intel VMD) count on above that.
    domain: u32,
    bus: u8,
    /// 0 to 31.
    device: u8,
    /// 0 to 7.
    function: u8,
}

/// A text that is not a PCI address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not a PCI address ({problem}): DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, as in 0000:00:03.0")]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `0000:00:03.0`, and `00:03.0` for domain 0.
    fn from_str(text: &str) -> Result<Address, AddressError> {
        let wrong = |problem| AddressError { text: text.to_owned(), problem };
        let part = |digits: &str, most: usize, max: u32, problem| {
            let good = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let value = if good { u32::from_str_radix(digits, 16).ok() } else { None };
            value.filter(|v| *v <= max).ok_or_else(|| wrong(problem))
        };
        let (rest, function) = text.rsplit_once('.').ok_or_else(|| wrong("no function"))?;
        let (rest, device) = rest.rsplit_once(':').ok_or_else(|| wrong("no bus"))?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        Ok(Address {
            domain: part(domain, 8, u32::MAX, "the domain has 4 digits")?,
            bus: part(bus, 2, 0xff, "the bus is 00 to ff")? as u8,
            device: part(device, 2, 0x1f, "the device is 00 to 1f")? as u8,
            function: part(function, 1, 7, "the function is 0 to 7")? as u8,
        })
    }
}

/// What a function is, from its class code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An NVMe I/O controller (class 010802h).
    Nvme,
    /// A network controller (class 02xxxxh).
    Nic,
    /// A bridge (class 06xxxxh).
    Bridge,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(class: u32) -> Kind {
        match (class >> 16, class) {
            (_, 0x01_0802) => Kind::Nvme,
            (0x02, _) => Kind::Nic,
            (0x06, _) => Kind::Bridge,
            _ => Kind::Other,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nvme => "nvme",
            Kind::Nic => "nic",
            Kind::Bridge => "bridge",
            Kind::Other => "other",
        }
    }
}

/// A PCI function as the kernel shows it.
#[derive(Clone, Debug)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Class code: base class, subclass, programming interface.
    pub class: u32,
    /// What that makes it.
    pub kind: Kind,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, where one was named.
    pub driver_override: Option<String>,
    /// NUMA node, where the firmware says so.
    pub numa: Option<u32>,
    /// Virtual functions that are switched on.
    pub virtual_functions: u32,
}

impl Function {
    /// Reads what the kernel shows of `address`; `None` when there is no such function.
    pub fn read(root: &Root, address: Address) -> Option<Function> {
        let file = |name: &str| format!("{DEVICES}/{address}/{name}");
        let class = root.hex(&file("class"))?;
        Some(Function {
            address,
            class,
            kind: Kind::of(class),
            vendor: root.hex(&file("vendor")).unwrap_or(0) as u16,
            device: root.hex(&file("device")).unwrap_or(0) as u16,
            driver: root.link(&file("driver")),
            driver_override: root.text(&file("driver_override")).filter(|o| !o.is_empty() && o != "(null)"),
            // -1 is the kernel's word for "the firmware does not say".
            numa: root.text(&file("numa_node")).and_then(|n| n.parse().ok()),
            virtual_functions: root.number(&file("sriov_numvfs")).unwrap_or(0) as u32,
        })
    }

    /// True when VFIO has it.
    pub fn is_vfio(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_PCI)
    }

    /// A path of its folder.
    pub fn file(&self, name: &str) -> String {
        format!("{DEVICES}/{}/{name}", self.address)
    }
}

/// The driver that gives a function to a process.
pub const VFIO_PCI: &str = "vfio-pci";

/// Every PCI function, by address.
pub fn functions(root: &Root) -> Vec<Function> {
    let addresses = root.names(DEVICES).into_iter().filter_map(|name| name.parse().ok());
    let mut all: Vec<Function> = addresses.filter_map(|address| Function::read(root, address)).collect();
    all.sort_by_key(|f| f.address);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_the_kernel_writes_them() {
        for (text, same) in [
            ("0000:00:03.0", "0000:00:03.0"),
            ("0000:AF:1f.7", "0000:af:1f.7"),
            ("00:03.0", "0000:00:03.0"),
            ("10000:01:00.0", "10000:01:00.0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), same);
        }
        for (text, part) in [
            ("", "no function"),
            ("nvme0", "no function"),
            ("03.0", "no bus"),
            ("0000:00:03.8", "function"),
            ("0000:00:20.0", "device"),
            ("0000:100:00.0", "bus"),
            ("0000:00:+3.0", "device"),
            ("x:00:03.0", "domain"),
            ("000000000:00:03.0", "domain"),
            ("0000:00:03.", "function"),
            ("../../0:00:03.0", "domain"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("0000:00:03.0"), "{text}: {error}");
        }
    }

    #[test]
    fn a_class_code_says_what_a_function_is() {
        for (class, kind) in [
            (0x01_0802, Kind::Nvme),
            (0x01_0803, Kind::Other), // an NVMe administrative controller has no I/O queues
            (0x01_0601, Kind::Other),
            (0x02_0000, Kind::Nic),
            (0x02_8000, Kind::Nic),
            (0x06_0400, Kind::Bridge),
        ] {
            assert_eq!(Kind::of(class), kind, "{class:06x}");
        }
    }
}
