//! Directories: pages of names, and one name by its hash.

use crate::bmap::What;
use crate::dablock::{BlockKind, DaBlock, hash, hash_ignoring_case};
use crate::dirdata::{self, Item, RawEntry, Short, data_end, item, tail_count, tail_pair};
use crate::inode::{ForkKind, Inode, place, printable};
use crate::layout::DIR_LEAF_OFFSET;
use crate::volume::Xfs;
use adit_core::bytes::{narrow, wide};
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeId, NodeKind, Problem, Result};

/// A page goes on until it has so many names, at most to the end of the block they end in.
const PAGE_ENTRIES: usize = 1024;
/// Problems told in one page.
const PROBLEMS_MAX: usize = 64;

impl Xfs {
    /// An inode that must be a directory.
    ///
    /// Errors: `Invalid` for anything else.
    pub(crate) fn directory(&self, ino: u64) -> Result<Inode> {
        let inode = self.inode(ino)?;
        if inode.kind() != Some(NodeKind::Directory) {
            let detail = format!("inode {ino} is no directory");
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        Ok(inode)
    }

    /// Some names, from a place on: a byte of the data, or of the inode.
    pub(crate) fn page(&self, dir: &Inode, from: Cursor) -> Result<DirPage> {
        if dir.is_local() { self.short_page(dir, from) } else { self.block_page(dir, from) }
    }

    fn short_page(&self, dir: &Inode, from: Cursor) -> Result<DirPage> {
        let short = Short::parse(dir, self.superblock().has_ftype())?;
        let mut page = DirPage::default();
        let mut at = short.first;
        for done in 0..short.count() {
            let Some(entry) = short.entry(at) else {
                let left = short.count().saturating_sub(done);
                let detail = format!("{left} names are cut off");
                let error = Error::corrupt(Problem::Truncated, detail);
                page.problems.push(error.at(place(dir.ino).byte(dir.offset)));
                break;
            };
            if wide(at) >= from.0 {
                self.push(&mut page, &entry, Cursor(wide(entry.end)));
            }
            at = entry.end;
        }
        Ok(page)
    }

    fn block_page(&self, dir: &Inode, from: Cursor) -> Result<DirPage> {
        let size = self.superblock().block_size;
        let step = self.da_blocks(ForkKind::Data);
        let bytes = self.superblock().dir_block_size;
        let limit = DIR_LEAF_OFFSET / size;
        let end = dir.raw.size.div_ceil(size.get()).min(limit);
        let mut page = DirPage::default();
        let mut at = from.0;
        loop {
            let logical = (at / size) & !step.saturating_sub(1);
            if logical >= end {
                return Ok(page);
            }
            let start = logical.saturating_mul(size.get());
            let after = start.saturating_add(bytes);
            let skip = narrow(at.saturating_sub(start)).unwrap_or(0);
            let stretch = self.stretch(dir, ForkKind::Data, logical);
            if matches!(stretch.what, What::Hole) {
                // Emptied blocks are given back; whole directory blocks at a time.
                let blocks = stretch.length.max(step) & !step.saturating_sub(1);
                at = start.saturating_add(blocks.saturating_mul(size.get()));
                continue;
            }
            if let What::Lost(error) = stretch.what {
                page.problems.push(error.in_layer(format!("inode {}", dir.ino)));
                at = start.saturating_add(stretch.length.max(step).saturating_mul(size.get()));
                continue;
            }
            if page.entries.len() >= PAGE_ENTRIES || page.problems.len() >= PROBLEMS_MAX {
                page.next = Some(Cursor(at));
                return Ok(page);
            }
            match self.da_block(dir, ForkKind::Data, logical) {
                Ok(block) => self.list_block(dir, &block, start, skip, &mut page),
                Err(error) => page.problems.push(error),
            }
            at = after;
        }
    }

    /// The names of one block.
    fn list_block(
        &self,
        dir: &Inode,
        block: &DaBlock,
        start: u64,
        skip: usize,
        page: &mut DirPage,
    ) {
        if !matches!(block.kind, BlockKind::DirBlock | BlockKind::DirData) {
            let detail = "an index stands where names belong";
            page.problems.push(Error::corrupt(Problem::BadMagic, detail).at(place(dir.ino)));
            return;
        }
        let ftype = self.superblock().has_ftype();
        let (mut at, end) = (block.header, data_end(block));
        while at < end {
            match item(&block.bytes, at, end, ftype) {
                Ok(Item::Unused(after)) => at = after,
                Ok(Item::Entry(entry)) => {
                    let after = Cursor(start.saturating_add(wide(entry.end)));
                    if at >= skip && !matches!(entry.name, b"." | b"..") {
                        self.push(page, &entry, after);
                    }
                    at = entry.end;
                }
                Err(error) => {
                    let inode = format!("inode {}", dir.ino);
                    page.problems.push(error.at(place(dir.ino)).in_layer(inode));
                    return;
                }
            }
        }
    }

    fn push(&self, page: &mut DirPage, entry: &RawEntry<'_>, after: Cursor) {
        let kind = match entry.kind() {
            Some(kind) => Ok(kind),
            None => self.inode(entry.ino).map(|inode| inode.kind().unwrap_or(NodeKind::System)),
        };
        match Name::new(entry.name).and_then(|name| Ok((name, kind?))) {
            Ok((name, kind)) => {
                page.entries.push(DirEntry { name, node: NodeId(entry.ino), kind, after });
            }
            Err(error) if page.problems.len() < PROBLEMS_MAX => {
                page.problems.push(error.in_layer(printable(entry.name)));
            }
            Err(_) => {}
        }
    }

    /// The inode behind a name.
    ///
    /// Errors: `NotFound`; `Corrupt` where the place of the name is damaged.
    pub(crate) fn find_name(&self, dir: &Inode, name: &Name) -> Result<u64> {
        let wanted = name.as_bytes();
        if wanted == b"." {
            return Ok(dir.ino);
        }
        let missing = || Error::not_found(format!("there is no {name} in inode {}", dir.ino));
        if dir.is_local() {
            return self.find_short(dir, wanted)?.ok_or_else(missing);
        }
        match self.find_hashed(dir, wanted) {
            Ok(found) => found.ok_or_else(missing),
            // The index only repeats what the names say.
            Err(error) => match self.find_linear(dir, wanted) {
                Ok(Some(found)) => Ok(found),
                _ => Err(error),
            },
        }
    }

    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        a == b || (self.superblock().ignores_case() && a.eq_ignore_ascii_case(b))
    }

    fn find_short(&self, dir: &Inode, wanted: &[u8]) -> Result<Option<u64>> {
        let short = Short::parse(dir, self.superblock().has_ftype())?;
        if wanted == b".." {
            return Ok(Some(short.parent));
        }
        let mut at = short.first;
        for _ in 0..short.count() {
            let Some(entry) = short.entry(at) else {
                let detail = "names are cut off";
                return Err(Error::corrupt(Problem::Truncated, detail).at(place(dir.ino)));
            };
            if self.same(entry.name, wanted) {
                return Ok(Some(entry.ino));
            }
            at = entry.end;
        }
        Ok(None)
    }

    /// The inode behind a name as the index tells it, without a search in order.
    ///
    /// Errors: `Corrupt` where the index is damaged.
    pub(crate) fn find_hashed(&self, dir: &Inode, wanted: &[u8]) -> Result<Option<u64>> {
        let hash = match self.superblock().ignores_case() {
            true => hash_ignoring_case(wanted),
            false => hash(wanted),
        };
        let first = self.da_block(dir, ForkKind::Data, 0);
        if let Ok(block) = &first
            && block.kind == BlockKind::DirBlock
        {
            return self.find_in_tail(block, wanted, hash);
        }
        let root = DIR_LEAF_OFFSET / self.superblock().block_size;
        self.addresses(dir, root, hash, &mut |address| self.name_at(dir, address, wanted))
    }

    /// Searches the index behind the names of a single-block directory.
    fn find_in_tail(&self, block: &DaBlock, wanted: &[u8], hash: u32) -> Result<Option<u64>> {
        let below = |index| tail_pair(block, index).is_some_and(|pair| pair.0 < hash);
        let mut index = crate::bmap::partition(tail_count(block), below);
        while let Some((found, address)) = tail_pair(block, index) {
            if found != hash {
                break;
            }
            let at = narrow(u64::from(address).saturating_mul(8)).unwrap_or(usize::MAX);
            if address != 0
                && let Some(ino) = self.matching(block, at, wanted)?
            {
                return Ok(Some(ino));
            }
            index = index.saturating_add(1);
        }
        Ok(None)
    }

    /// The inode of the name at an address of the data, if it is the wanted one.
    fn name_at(&self, dir: &Inode, address: u32, wanted: &[u8]) -> Result<Option<u64>> {
        let byte = u64::from(address).saturating_mul(8);
        let size = self.superblock().block_size;
        let step = self.da_blocks(ForkKind::Data);
        let logical = (byte / size) & !step.saturating_sub(1);
        let block = self.da_block(dir, ForkKind::Data, logical)?;
        let start = logical.saturating_mul(size.get());
        let at = narrow(byte.saturating_sub(start)).unwrap_or(usize::MAX);
        self.matching(&block, at, wanted)
    }

    fn matching(&self, block: &DaBlock, at: usize, wanted: &[u8]) -> Result<Option<u64>> {
        let ftype = self.superblock().has_ftype();
        match item(&block.bytes, at, data_end(block), ftype)? {
            Item::Entry(entry) if self.same(entry.name, wanted) => Ok(Some(entry.ino)),
            Item::Entry(_) => Ok(None),
            Item::Unused(_) => {
                let detail = "the index of a directory leads to unused space";
                Err(Error::corrupt(Problem::Mismatch, detail))
            }
        }
    }

    /// Searches all names in order.
    fn find_linear(&self, dir: &Inode, wanted: &[u8]) -> Result<Option<u64>> {
        if wanted == b".." {
            let block = self.da_block(dir, ForkKind::Data, 0)?;
            let end = dirdata::data_end(&block);
            let own = item(&block.bytes, block.header, end, self.superblock().has_ftype())?;
            let Item::Entry(own) = own else { return Ok(None) };
            return self.matching(&block, own.end, wanted);
        }
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = self.page(dir, cursor)?;
            let same = |entry: &&DirEntry| self.same(entry.name.as_bytes(), wanted);
            if let Some(entry) = page.entries.iter().find(same) {
                return Ok(Some(entry.node.0));
            }
            from = page.next;
        }
        Ok(None)
    }
}
