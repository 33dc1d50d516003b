//! The index of a wide directory: which pages it has, what each begins with and adds up to.

use super::{
    Totals,
    header::{HEADER_LEN, Header, Shape, malformed, totals_at, write_totals},
    leaf::{binary_search, check_name, starts_page},
};
use crate::{
    Digest, Result,
    fields::{digest_at, u16_at, u32_at},
};

/// The header, the number of pages and four bytes of zeros.
const TABLE_AT: usize = HEADER_LEN + 8;
/// Bytes of a page's record in the table.
const RECORD_LEN: usize = 80;
// first_name_off u32, first_name_len u16, zero u16, count u32, zero u32, digest, totals.
const _: () = assert!(4 + 2 + 2 + 4 + 4 + 32 + 32 == RECORD_LEN);

/// A page as its directory's index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page<'a> {
    pub(super) first_name: &'a [u8],
    pub(super) count: u32,
    pub(super) digest: Digest,
    pub(super) totals: Totals,
}

/// Bytes that passed [`Index::check`].
#[derive(Clone, Copy)]
pub(super) struct Index<'a> {
    bytes: &'a [u8],
    pages: u32,
}

impl<'a> Index<'a> {
    /// Checks every rule of docs/format.md that these bytes alone can break.
    pub(super) fn check(bytes: &'a [u8]) -> Result<(Index<'a>, Header)> {
        let header = Header::read(bytes)?;
        if header.shape != Shape::Index || bytes.len() < TABLE_AT {
            return Err(malformed("not an index"));
        }
        let pages = u32_at(bytes, HEADER_LEN);
        let len = TABLE_AT as u64 + u64::from(pages) * RECORD_LEN as u64 + u64::from(header.heap_len);
        if len != bytes.len() as u64 || u32_at(bytes, HEADER_LEN + 4) != 0 {
            return Err(malformed("length is not that of its table and heap"));
        }
        if pages < 2 {
            return Err(malformed("an index of fewer than two pages"));
        }
        let index = Index { bytes, pages };
        index.check_pages(&header)?;
        Ok((index, header))
    }

    /// `bytes` that [`Index::check`] has passed before.
    pub(super) fn checked(bytes: &'a [u8], pages: u32) -> Index<'a> {
        Index { bytes, pages }
    }

    /// All of the `bytes` that [`Index::check`] has passed before.
    pub(super) fn opened(bytes: &'a [u8]) -> Index<'a> {
        Index { bytes, pages: u32_at(bytes, HEADER_LEN) }
    }

    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    pub(super) fn page(&self, page: u32) -> Page<'a> {
        let record = self.record(page);
        let start = u32_at(record, 0) as usize;
        Page {
            first_name: &self.heap()[start..start + usize::from(u16_at(record, 4))],
            count: u32_at(record, 8),
            digest: digest_at(record, 16).expect("page digests are checked when an index is opened"),
            totals: totals_at(record, 48),
        }
    }

    /// The page that `name` is in, if the directory has it.
    pub(super) fn page_of(&self, name: &[u8]) -> u32 {
        match binary_search(0..self.pages, |page| self.page(page).first_name.cmp(name)) {
            Ok(page) => page,
            Err(next) => next.saturating_sub(1),
        }
    }

    fn record(&self, page: u32) -> &'a [u8] {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        let start = TABLE_AT + page as usize * RECORD_LEN;
        &self.bytes[start..start + RECORD_LEN]
    }

    fn heap(&self) -> &'a [u8] {
        &self.bytes[TABLE_AT + self.pages as usize * RECORD_LEN..]
    }

    fn check_pages(&self, header: &Header) -> Result<()> {
        let heap = self.heap();
        let (mut heap_used, mut previous) = (0usize, None);
        let (mut count, mut totals) = (0u64, Totals::default());
        for page in 0..self.pages {
            let record = self.record(page);
            if u32_at(record, 0) as usize != heap_used || u16_at(record, 6) != 0 || u32_at(record, 12) != 0 {
                return Err(malformed("a gap in the index"));
            }
            let name_end = heap_used + usize::from(u16_at(record, 4));
            let name = heap.get(heap_used..name_end).ok_or(malformed("a name beyond the heap"))?;
            check_name(name)?;
            if previous.is_some_and(|previous| previous >= name || !starts_page(name)) {
                return Err(malformed("pages out of order or cut at the wrong name"));
            }
            if u32_at(record, 8) == 0 || digest_at(record, 16).is_none() {
                return Err(malformed("a page without entries or digest"));
            }
            heap_used = name_end;
            previous = Some(name);
            count += u64::from(u32_at(record, 8));
            totals = totals.plus(&totals_at(record, 48));
        }
        if heap_used != heap.len() {
            return Err(malformed("unused bytes in the heap"));
        }
        if count != u64::from(header.count) || totals != header.totals {
            return Err(malformed("totals are not those of its pages"));
        }
        Ok(())
    }
}

/// The index object of `pages`, of which there are two or more.
pub(super) fn encode(pages: &[Page<'_>]) -> Result<Vec<u8>> {
    let heap_len: usize = pages.iter().map(|page| page.first_name.len()).sum();
    let count: u64 = pages.iter().map(|page| u64::from(page.count)).sum();
    let totals = pages.iter().fold(Totals::default(), |sum, page| sum.plus(&page.totals));
    let too_wide = |_| malformed("more entries than a directory can have");
    let header = Header {
        shape: Shape::Index,
        count: u32::try_from(count).map_err(too_wide)?,
        heap_len: u32::try_from(heap_len).map_err(too_wide)?,
        totals,
    };
    let mut out = Vec::with_capacity(TABLE_AT + pages.len() * RECORD_LEN + heap_len);
    header.write(&mut out);
    out.extend((pages.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    let mut name_off = 0u32;
    for page in pages {
        out.extend(name_off.to_le_bytes());
        out.extend((page.first_name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(page.count.to_le_bytes());
        out.extend([0; 4]);
        out.extend(page.digest.0);
        write_totals(&mut out, &page.totals);
        name_off += page.first_name.len() as u32;
    }
    out.extend(pages.iter().flat_map(|page| page.first_name));
    Ok(out)
}
