//! What `stat` shows beyond what every file system has, and extended attributes.

use crate::layout::{dos, kind, tag};
use crate::names::{to_bytes, to_text};
use crate::node::Node;
use crate::ntfs::Ntfs;
use crate::security;
use crate::wof::{Provider, STREAM};
use adit_core::bytes::{array, index, narrow, u16_le, u32_le};
use adit_core::on_disk::Value;
use adit_core::{Detail, DiskExt, Name, Result, Xattr, guid};

/// Streams and attributes up to this size are shown as extended attributes. Unit: bytes.
const XATTR_BYTES_MAX: u64 = 64 << 10;

impl Ntfs {
    /// Everything particular to NTFS about a file. The names are stable.
    pub(crate) fn details_of(&self, node: &Node) -> Result<Vec<Detail>> {
        let record = &node.record;
        let mut details = vec![
            ("record", Value::Uint(record.number)),
            ("sequence", Value::Uint(record.raw.sequence.into())),
            ("lsn", Value::Uint(record.raw.lsn)),
            ("attribute_list", Value::Text(word(node.is_listed()))),
        ];
        if let Some(standard) = self.standard(node)? {
            details.push(("dos_attributes", Value::Text(dos_words(standard.attributes))));
            details.extend(standard.security_id.map(|id| ("security_id", Value::Uint(id.into()))));
            details.extend(standard.usn.map(|usn| ("usn", Value::Uint(usn))));
        }
        // A damaged $Secure must not hide the rest.
        match self.security_descriptor(node) {
            Ok(Some(descriptor)) => {
                details.extend(security::owner(&descriptor).map(|s| ("owner_sid", Value::Text(s))));
                details.extend(security::group(&descriptor).map(|s| ("group_sid", Value::Text(s))));
            }
            Ok(None) => {}
            Err(error) => details.push(("owner_sid", Value::Text(format!("unknown: {error}")))),
        }
        if let Some(id) = self.first(node, kind::OBJECT_ID)?
            && let Some(id) = array::<16>(id.value()?, 0)
        {
            details.push(("object_id", Value::Text(guid(&id))));
        }
        let short = self.file_names(node).into_iter().flatten().find(|name| name.is_dos());
        details.extend(short.map(|name| ("dos_name", Value::Text(to_text(&name.name)))));
        self.reparse_details(node, &mut details)?;
        let streams = self.streams(node)?;
        if let Some(main) = streams.iter().find(|stream| stream.name.is_empty()) {
            details.push(("data", Value::Text(main.words.clone())));
        }
        let named: Vec<Value> = streams
            .iter()
            .filter(|stream| !stream.name.is_empty())
            .map(|stream| {
                Value::Text(format!("{} ({} bytes)", to_text(&stream.name), stream.size_bytes))
            })
            .collect();
        if !named.is_empty() {
            details.push(("streams", Value::List(named)));
        }
        Ok(details.into_iter().map(|(name, value)| Detail { name, value }).collect())
    }

    fn reparse_details(&self, node: &Node, details: &mut Vec<(&'static str, Value)>) -> Result<()> {
        let Some(reparse) = self.reparse(node)? else { return Ok(()) };
        let text = format!("{:#010x} ({})", reparse.tag, tag::word(reparse.tag));
        details.push(("reparse_tag", Value::Text(text)));
        if let Ok((opened, shown)) = reparse.names() {
            details.push(("link_target", Value::Text(to_text(&opened))));
            details.push(("link_shown", Value::Text(to_text(&shown))));
        }
        if reparse.tag == tag::WOF {
            let method = match Provider::parse(&reparse.data) {
                Ok(provider) => provider.word().to_owned(),
                Err(error) => error.to_string(),
            };
            details.push(("compact", Value::Text(method)));
        }
        Ok(())
    }

    /// The data streams of a file.
    ///
    /// Errors: `Corrupt` where records of the file cannot be read.
    pub fn streams(&self, node: &Node) -> Result<Vec<StreamInfo>> {
        let parts = self.parts_where(node, kind::DATA, true);
        if let Some(error) = parts.errors.into_iter().next() {
            return Err(error);
        }
        let info = |own: crate::record::Attribute| {
            let (size_bytes, allocated_bytes) = own.sizes();
            let words = words(own.flags, matches!(own.body, crate::Body::Resident(_)));
            StreamInfo { name: own.name, size_bytes, allocated_bytes, words }
        };
        Ok(parts.attributes.into_iter().map(info).collect())
    }

    /// Small named streams as `user.stream.NAME`, extended attributes as `user.ea.NAME`. Larger
    /// streams are in `details` and opened as forks.
    pub(crate) fn xattrs_of(&self, node: &Node) -> Result<Vec<Xattr>> {
        let mut xattrs = Vec::new();
        for info in self.streams(node)? {
            let hidden = to_bytes(&info.name) == STREAM.as_bytes();
            if info.name.is_empty() || hidden || info.size_bytes > XATTR_BYTES_MAX {
                continue;
            }
            let Some(stream) = self.stream(node, kind::DATA, &info.name)? else { continue };
            if stream.is_encrypted() {
                continue;
            }
            let name = Name::new([b"user.stream.", &to_bytes(&info.name)[..]].concat())?;
            let length = narrow(info.size_bytes).unwrap_or(0);
            let value = self.disk(stream, "stream").read_vec(0, length)?;
            xattrs.push(Xattr { name, value });
        }
        if let Some(value) = self.value(node, kind::EA, XATTR_BYTES_MAX)? {
            xattrs.extend(extended(&value)?);
        }
        Ok(xattrs)
    }
}

/// A data stream of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name, UTF-16; empty for the main stream.
    pub name: Vec<u16>,
    /// Unit: bytes.
    pub size_bytes: u64,
    /// Unit: bytes.
    pub allocated_bytes: u64,
    /// How it is stored: `resident`, `compressed`, `sparse`, `encrypted`.
    pub words: String,
}

fn words(flags: u16, resident: bool) -> String {
    use crate::layout::attribute_flag::{COMPRESSION_MASK, ENCRYPTED, SPARSE};
    let mut words = vec![if resident { "resident" } else { "clusters" }];
    let known = [(COMPRESSION_MASK, "compressed"), (SPARSE, "sparse"), (ENCRYPTED, "encrypted")];
    words.extend(known.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, word)| word));
    words.join(" ")
}

fn dos_words(attributes: u32) -> String {
    let words: Vec<&str> = dos::WORDS
        .iter()
        .filter(|(flag, _)| attributes & flag != 0)
        .map(|(_, word)| *word)
        .collect();
    format!("{attributes:#010x} ({})", words.join(" "))
}

fn word(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

/// The entries of `$EA`.
fn extended(value: &[u8]) -> Result<Vec<Xattr>> {
    let (mut xattrs, mut rest) = (Vec::new(), value);
    // Offset of the next, flags, length of the name, length of the value.
    while let (Some(next), Some(name), Some(length)) =
        (u32_le(rest, 0), rest.get(5), u16_le(rest, 6))
    {
        let name_end = usize::from(*name).saturating_add(8);
        let start = name_end.saturating_add(1);
        let end = start.saturating_add(usize::from(length));
        let (Some(name), Some(value)) = (rest.get(8..name_end), rest.get(start..end)) else {
            break;
        };
        let name = Name::new([b"user.ea.", name].concat())?;
        xattrs.push(Xattr { name, value: value.to_vec() });
        if next == 0 {
            break;
        }
        rest = rest.get(index(next)..).unwrap_or_default();
    }
    Ok(xattrs)
}
