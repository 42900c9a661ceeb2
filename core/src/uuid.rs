//! The two printed forms of 16-byte identities.

/// VMware's form, `68626efc-23ce1cd0-1f8b-bc2411b17e28`.
///
/// Source: LVM volume names, which hold both the bytes and the text.
pub fn vmware_uuid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    format!(
        "{d:02x}{c:02x}{b:02x}{a:02x}-{h:02x}{g:02x}{f:02x}{e:02x}-{j:02x}{i:02x}-\
         {k:02x}{l:02x}{m:02x}{n:02x}{o:02x}{p:02x}"
    )
}

/// The mixed-endian GUID form of GPT and Microsoft formats, upper case.
///
/// Source: UEFI specification, appendix A.
pub fn guid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    format!(
        "{d:02X}{c:02X}{b:02X}{a:02X}-{f:02X}{e:02X}-{h:02X}{g:02X}-{i:02X}{j:02X}-\
         {k:02X}{l:02X}{m:02X}{n:02X}{o:02X}{p:02X}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_uuid_prints_as_the_volume_name_does() {
        let bytes = [
            0xfc, 0x6e, 0x62, 0x68, 0xd0, 0x1c, 0xce, 0x23, 0x8b, 0x1f, 0xbc, 0x24, 0x11, 0xb1,
            0x7e, 0x28,
        ];
        assert_eq!(vmware_uuid(&bytes), "68626efc-23ce1cd0-1f8b-bc2411b17e28");
    }

    #[test]
    fn a_partition_type_prints_as_the_specification_does() {
        let bytes = [
            0x2a, 0xe0, 0x31, 0xaa, 0x0f, 0x40, 0xdb, 0x11, 0x95, 0x90, 0x00, 0x0c, 0x29, 0x11,
            0xd1, 0xb8,
        ];
        assert_eq!(guid(&bytes), "AA31E02A-400F-11DB-9590-000C2911D1B8");
    }
}
