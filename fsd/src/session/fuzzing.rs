//! A door for the fuzz targets of `ci/fuzz`: what nothing outside the engine needs.

use super::{Pool, record::Record};

/// The body of a log record: one that decodes is, encoded again, the same bytes.
pub fn log_record(body: &[u8], pool: &Pool) {
    let Some(record) = Record::decode(body, pool) else { return };
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(again, body, "a record has one spelling");
}
