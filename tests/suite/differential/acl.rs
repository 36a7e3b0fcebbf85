//! POSIX ACLs as extended attributes have them.

use std::ffi::CStr;

/// The attribute's name.
pub fn name(default: bool) -> &'static CStr {
    if default {
        c"system.posix_acl_default"
    } else {
        c"system.posix_acl_access"
    }
}

/// An ACL `u::rwx, u:UID:bits, g::r-x, m::rwx, o::r--`.
pub fn naming(uid: u32, bits: u16) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    let (user_obj, user, group_obj, mask, other) = (0x01, 0x02, 0x04, 0x10, 0x20);
    let entries: [(u16, u16, u32); 5] = [
        (user_obj, 7, NOBODY),
        (user, bits, uid),
        (group_obj, 5, NOBODY),
        (mask, 7, NOBODY),
        (other, 4, NOBODY),
    ];
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}
