//! Sizes as people read them.

/// A size with its unit: `14 B`, `97.2 KiB`, `1.3 MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = bytes.saturating_mul(10) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", tenths(1 << 10)),
        _ => format!("{} MiB", tenths(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::size_text;

    #[test]
    fn a_size_has_the_unit_that_fits_it() {
        assert_eq!(size_text(0), "0 B");
        assert_eq!(size_text(1023), "1023 B");
        assert_eq!(size_text(1024), "1.0 KiB");
        assert_eq!(size_text((1 << 20) - 1), "1023.9 KiB");
        assert_eq!(size_text(3 << 19), "1.5 MiB");
    }
}
