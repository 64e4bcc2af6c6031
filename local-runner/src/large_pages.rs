//! Large pages for weights: a fault for every 2 MiB instead of 4 KiB, which is a third of the time that loading takes.
//!
//! But not in a virtual machine that gives free memory back to its host (free page reporting, `mm/page_reporting.c`): it gives
//! back large pages only, and what was given back is slow to come by again.

use std::mem::MaybeUninit;

/// Asks the system to serve this memory with large pages where that helps. What it answers costs time and nothing else.
pub fn ask(memory: &mut [MaybeUninit<u8>]) {
    #[cfg(target_os = "linux")]
    if !linux::reports_free_pages() {
        linux::advise(memory);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::mem::MaybeUninit;

    /// `VIRTIO_BALLOON_F_REPORTING` of the virtio specification, section 5.5.3.
    const REPORTING: usize = 5;

    /// Whether free memory is given back to a host.
    pub fn reports_free_pages() -> bool {
        let devices = fs::read_dir("/sys/bus/virtio/drivers/virtio_balloon").into_iter().flatten().flatten();
        let features = devices.filter_map(|device| fs::read_to_string(device.path().join("features")).ok());
        features.into_iter().any(|features| has_reporting(&features))
    }

    /// `features` has a digit for each feature of a device, the first one first.
    pub fn has_reporting(features: &str) -> bool {
        features.as_bytes().get(REPORTING) == Some(&b'1')
    }

    pub fn advise(memory: &mut [MaybeUninit<u8>]) {
        const PAGE: usize = 4096;
        let start = memory.as_mut_ptr();
        let before = start.addr() % PAGE;
        // SAFETY: the advice changes no byte and no right of access, of the neighbours on the first and last page neither.
        unsafe { libc::madvise(start.wrapping_byte_sub(before).cast(), memory.len() + before, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::linux::{advise, has_reporting};

    /// The flags of the mapping that holds `address`, by the system's own account.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let holds = |line: &str| {
            let range = line.split(' ').next()?.split_once('-')?;
            let [first, end] = [range.0, range.1].map(|text| usize::from_str_radix(text, 16));
            Some((first.ok()?..end.ok()?).contains(&address))
        };
        let mut lines = maps.lines().skip_while(|line| !holds(line).unwrap_or_default());
        lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap().to_owned()
    }

    #[test]
    fn the_system_knows_that_large_pages_are_wanted() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let mut memory: Vec<u8> = Vec::with_capacity(64 << 20);
        let middle = memory.as_ptr().addr() + (32 << 20);
        assert!(!flags(middle).contains(" hg"));
        advise(memory.spare_capacity_mut());
        assert!(flags(middle).contains(" hg"));
    }

    #[test]
    fn the_feature_is_told_from_its_neighbours() {
        assert!(has_reporting("0000010000000000\n") && !has_reporting("1111101111111111\n") && !has_reporting("111\n"));
    }
}
