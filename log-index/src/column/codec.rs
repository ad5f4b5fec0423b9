//! Columns as bytes. Format: FORMAT.md, "Column".

use std::cell::RefCell;
use std::collections::HashMap;

use super::buffer;
use super::text::{self, Lines};
use super::{Blobs, Column, Order, Presence, Texts, Type, Values};
use crate::codec::{get_uvarint, get_varint, put_uvarint, put_varint, take};
use crate::tokens;

const PRESENCE: u8 = 1;
const CONSTANT: u8 = 2;
const DICTIONARY: u8 = 4;
const ZSTD: u8 = 8;
const MARKED: u8 = 16;

/// The level columns are packed with; see docs/adr/0007-log-blocks.md.
const LEVEL: i32 = 6;
/// What is shorter is not worth a frame.
const LEAST: usize = 48;
/// No column of a block is larger unpacked.
const MOST: usize = 1 << 28;
/// Values a dictionary may have.
const DICTIONARY_MOST: usize = 4096;

/// A packed column: the part that is compressed, then the part that is not worth it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packed {
    pub(crate) kind: Type,
    pub(crate) flags: u8,
    /// Of the first part, unpacked.
    pub(crate) raw_len: u32,
    /// Of the first part, as it is.
    pub(crate) main_len: u32,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    /// What is compressed, before it is cut to its length.
    scratch: Vec<u8>,
}

impl Packer {
    pub(crate) fn new() -> std::io::Result<Packer> {
        Ok(Packer { zstd: zstd::bulk::Compressor::new(LEVEL)?, scratch: Vec::new() })
    }

    /// `lines`: a text column's values if they are packed already. Hashes of ids in other text go to `ids`.
    pub(crate) fn pack(
        &mut self,
        c: &Column,
        lines: Option<Lines>,
        ids: &mut Vec<u64>,
    ) -> std::io::Result<Packed> {
        let (mut main, mut tail) = (Vec::new(), Vec::new());
        let mut flags = 0;
        if let Some(p) = &c.present {
            flags |= PRESENCE;
            p.words.iter().for_each(|w| main.extend_from_slice(&w.to_le_bytes()));
        }
        match &c.order {
            Order::Own => {}
            Order::Constant => flags |= CONSTANT,
            Order::Dictionary(order) => {
                flags |= DICTIONARY;
                let values = c.values.len();
                put_uvarint(&mut main, values as u64);
                if values <= 256 {
                    main.extend(order.iter().map(|i| *i as u8));
                } else {
                    order.iter().for_each(|i| main.extend_from_slice(&i.to_le_bytes()));
                }
            }
        }
        match &c.values {
            Values::Bool(v) => main.extend(
                v.chunks(8)
                    .map(|c| c.iter().enumerate().fold(0u8, |byte, (bit, v)| byte | u8::from(*v) << bit)),
            ),
            Values::Int(v) => put_ints(&mut main, v),
            Values::Double(v) => v.iter().for_each(|v| main.extend_from_slice(&v.to_bits().to_le_bytes())),
            Values::Text(v) => {
                let lines = lines.unwrap_or_else(|| pack_lines(v, ids));
                if lines.marked {
                    flags |= MARKED;
                }
                if main.is_empty() {
                    main = lines.packed
                } else {
                    main.extend_from_slice(&lines.packed)
                }
                tail = lines.ids;
            }
            Values::Wide(v) => tail = v.concat(),
            Values::Narrow(v) => tail = v.concat(),
            Values::Blob(v) => {
                let mut start = 0;
                for end in &v.ends {
                    put_uvarint(&mut main, u64::from(end - start));
                    start = *end;
                }
                main.extend_from_slice(&v.data);
            }
        }
        let raw_len = main.len() as u32;
        let mut bytes = main;
        if bytes.len() >= LEAST {
            self.scratch.clear();
            self.scratch.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
            self.zstd.compress_to_buffer(&bytes, &mut self.scratch)?;
            if self.scratch.len() < bytes.len() {
                buffer::give(std::mem::replace(&mut bytes, self.scratch.clone()));
                flags |= ZSTD;
            }
        }
        let main_len = bytes.len() as u32;
        bytes.extend_from_slice(&tail);
        Ok(Packed { kind: c.values.kind(), flags, raw_len, main_len, bytes })
    }
}

fn pack_lines(v: &Texts, hashes: &mut Vec<u64>) -> Lines {
    let mut lines = Lines::default();
    let mut ids = Vec::new();
    for t in v.iter() {
        let mut special = false;
        ids.clear();
        tokens::each(
            t.as_bytes(),
            |t| {
                if t.kind != tokens::Kind::Word {
                    hashes.push(tokens::hash(t.text));
                }
                ids.extend(t.packable());
            },
            &mut special,
        );
        lines.push(t.as_bytes(), special, &ids);
    }
    lines
}

/// The first, the greatest common divisor of the steps, and how many of it each step is.
fn put_ints(out: &mut Vec<u8>, v: &[i64]) {
    let Some(first) = v.first() else { return };
    let steps = || v.windows(2).map(|w| if let [a, b] = w { b.wrapping_sub(*a) } else { 0 });
    let mut divisor = 0u64;
    for s in steps() {
        divisor = gcd(divisor, s.unsigned_abs());
        if divisor == 1 {
            break;
        }
    }
    // Of a step of exactly i64::MIN alone the divisor is no i64.
    let divisor = i64::try_from(divisor).unwrap_or(1).max(1);
    put_varint(out, *first);
    put_uvarint(out, divisor as u64);
    steps().for_each(|s| put_varint(out, s / divisor));
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn get_ints(d: &mut &[u8], count: usize) -> Option<Vec<i64>> {
    let mut out = Vec::with_capacity(count);
    if count == 0 {
        return Some(out);
    }
    let mut last = get_varint(d)?;
    let divisor = get_uvarint(d)? as i64;
    out.push(last);
    for _ in 1..count {
        last = last.wrapping_add(get_varint(d)?.wrapping_mul(divisor));
        out.push(last);
    }
    Some(out)
}

thread_local! {
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(crate) fn decompress(data: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    if raw_len > MOST {
        return None;
    }
    let out = UNZSTD.with_borrow_mut(|d| {
        if d.is_none() {
            *d = zstd::bulk::Decompressor::new().ok();
        }
        let mut out = buffer::take(raw_len);
        d.as_mut()?.decompress_to_buffer(data, &mut out).ok()?;
        Some(out)
    })?;
    (out.len() == raw_len).then_some(out)
}

/// A column of `count` rows from what [`Packer::pack`] gave. `None` if it is no such thing.
pub(crate) fn unpack(p: &Packed, count: usize) -> Option<Column> {
    let (main, tail) = p.bytes.split_at_checked(p.main_len as usize)?;
    let main = match p.flags & ZSTD != 0 {
        true => decompress(main, p.raw_len as usize)?,
        false => main.to_vec(),
    };
    let mut d = main.as_slice();
    let mut own = count;
    let present = if p.flags & PRESENCE != 0 {
        let words = take(&mut d, count.div_ceil(64) * 8)?.chunks_exact(8);
        let p = Presence::new(words.filter_map(|w| Some(u64::from_le_bytes(w.try_into().ok()?))).collect());
        own = p.count();
        Some(p)
    } else {
        None
    };
    let (order, values) = if p.flags & CONSTANT != 0 {
        (Order::Constant, 1)
    } else if p.flags & DICTIONARY != 0 {
        let values = usize::try_from(get_uvarint(&mut d)?).ok()?;
        let order: Vec<u16> = if values <= 256 {
            take(&mut d, own)?.iter().map(|b| u16::from(*b)).collect()
        } else {
            let pairs = take(&mut d, own.checked_mul(2)?)?.chunks_exact(2);
            pairs.filter_map(|b| Some(u16::from_le_bytes(b.try_into().ok()?))).collect()
        };
        (order.iter().all(|i| usize::from(*i) < values)).then_some(())?;
        (Order::Dictionary(order), values)
    } else {
        (Order::Own, own)
    };
    // Each value takes a byte at least, or a bit.
    (values <= p.raw_len as usize * 8 + tail.len()).then_some(())?;
    let values = match p.kind {
        Type::Bool => {
            let bits = take(&mut d, values.div_ceil(8))?;
            Values::Bool(
                (0..values).map(|i| bits.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1)).collect(),
            )
        }
        Type::Int => Values::Int(get_ints(&mut d, values)?),
        Type::Double => {
            let all = take(&mut d, values.checked_mul(8)?)?.chunks_exact(8);
            Values::Double(
                all.filter_map(|v| Some(f64::from_bits(u64::from_le_bytes(v.try_into().ok()?)))).collect(),
            )
        }
        Type::Text => {
            let skip = main.len() - d.len();
            let marked = p.flags & MARKED != 0;
            let packed = if skip == 0 { main } else { main.get(skip..)?.to_vec() };
            return Some(Column {
                present,
                order,
                values: Values::Text(text::unpack(packed, tail, marked, values)?),
            });
        }
        Type::Wide => {
            (tail.len() == values.checked_mul(16)?).then_some(())?;
            Values::Wide(tail.chunks_exact(16).filter_map(|v| v.try_into().ok()).collect())
        }
        Type::Narrow => {
            (tail.len() == values.checked_mul(8)?).then_some(())?;
            Values::Narrow(tail.chunks_exact(8).filter_map(|v| v.try_into().ok()).collect())
        }
        Type::Blob => {
            let (mut ends, mut end) = (Vec::with_capacity(values), 0u32);
            for _ in 0..values {
                end = end.checked_add(u32::try_from(get_uvarint(&mut d)?).ok()?)?;
                ends.push(end);
            }
            let data = take(&mut d, end as usize)?.to_vec();
            Values::Blob(Blobs { data, ends })
        }
    };
    d.is_empty().then_some(())?;
    buffer::give(main);
    Some(Column { present, order, values })
}

impl Column {
    /// From values of the rows that have one, with repetition taken out where it pays.
    pub(crate) fn of(present: Option<Presence>, values: Values) -> Column {
        let (order, values) = match values {
            Values::Bool(v) if same(&v) => (Order::Constant, Values::Bool(first(v))),
            Values::Int(v) if same(&v) => (Order::Constant, Values::Int(first(v))),
            Values::Double(v) if v.windows(2).all(|w| matches!(w, [a, b] if a.to_bits() == b.to_bits())) => {
                (Order::Constant, Values::Double(first(v)))
            }
            Values::Text(v) => match dictionary(v.len(), v.iter()) {
                None => (Order::Own, Values::Text(v)),
                Some((order, chosen)) => {
                    let mut values = Texts::default();
                    chosen.iter().for_each(|i| values.push(v.get(*i)));
                    (order, Values::Text(values))
                }
            },
            Values::Wide(v) => match dictionary(v.len(), v.iter()) {
                None => (Order::Own, Values::Wide(v)),
                Some((order, chosen)) => {
                    (order, Values::Wide(chosen.iter().filter_map(|i| v.get(*i).copied()).collect()))
                }
            },
            values => (Order::Own, values),
        };
        Column { present, order, values }
    }
}

fn same<T: PartialEq>(v: &[T]) -> bool {
    v.windows(2).all(|w| matches!(w, [a, b] if a == b))
}

fn first<T>(mut v: Vec<T>) -> Vec<T> {
    v.truncate(1);
    v
}

/// The order, and which of the values are the dictionary, if they are few.
fn dictionary<T: Eq + std::hash::Hash>(
    count: usize,
    values: impl Iterator<Item = T>,
) -> Option<(Order, Vec<usize>)> {
    let mut known: HashMap<T, u16, ahash::RandomState> = HashMap::default();
    let (mut order, mut chosen) = (Vec::with_capacity(count), Vec::new());
    for (i, v) in values.enumerate() {
        let next = chosen.len();
        let at = *known.entry(v).or_insert_with(|| {
            chosen.push(i);
            next as u16
        });
        // Hopeless ones are given up early.
        if chosen.len() > DICTIONARY_MOST || i >= 64 && chosen.len() * 2 > i {
            return None;
        }
        order.push(at);
    }
    match chosen.len() {
        0 => None,
        1 => Some((Order::Constant, chosen)),
        n if n * 2 <= count => Some((Order::Dictionary(order), chosen)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(v: &[String]) -> Texts {
        let mut t = Texts::default();
        v.iter().for_each(|v| t.push(v));
        t
    }

    fn values() -> impl Strategy<Value = Values> {
        prop_oneof![
            prop::collection::vec(any::<bool>(), 1..40).prop_map(Values::Bool),
            prop::collection::vec(any::<i64>(), 1..40).prop_map(Values::Int),
            prop::collection::vec((-5i64..5).prop_map(|v| v * 1000), 1..40).prop_map(Values::Int),
            prop::collection::vec(-1e9..1e9f64, 1..40).prop_map(Values::Double),
            prop::collection::vec("[ab\n\u{1}]{0,2}", 1..90).prop_map(|v| Values::Text(texts(&v))),
            prop::collection::vec(
                "[0-9a-f]{16}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                1..9
            )
            .prop_map(|v| Values::Text(texts(&v))),
            prop::collection::vec(any::<[u8; 16]>(), 1..9).prop_map(Values::Wide),
            prop::collection::vec(Just([3u8; 16]), 1..9).prop_map(Values::Wide),
            prop::collection::vec(any::<[u8; 8]>(), 1..9).prop_map(Values::Narrow),
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..9).prop_map(|v| {
                let mut b = Blobs::default();
                v.iter().for_each(|v| b.push(v));
                Values::Blob(b)
            }),
        ]
    }

    proptest! {
        #[test]
        fn columns_round_trip(values in values(), gaps in 0u32..3) {
            let n = values.len();
            let rows: Vec<u32> = (0..n as u32).map(|r| r * (gaps + 1)).collect();
            let count = if gaps == 0 { n } else { n * (gaps as usize + 1) };
            let present = (gaps > 0).then(|| Presence::of(&rows, count));
            let c = Column::of(present, values);
            let p = Packer::new().expect("zstd").pack(&c, None, &mut Vec::new()).expect("packs");
            prop_assert_eq!(unpack(&p, count), Some(c));
        }

        #[test]
        fn anything_is_refused_without_panic(kind in 0u8..7, flags in 0u8..32, raw_len in 0u32..100, main_len in 0u32..60, count in 0usize..200, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let kind = Type::from_number(kind).expect("a kind");
            drop(unpack(&Packed { kind, flags, raw_len, main_len, bytes }, count));
        }
    }
}
