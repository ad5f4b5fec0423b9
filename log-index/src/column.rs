//! A column of a block, unpacked: one value for each row that has one.

mod buffer;
mod codec;
mod text;

pub(crate) use codec::{Packed, Packer, decompress, unpack};
pub(crate) use text::{IdAt, Lines};

use signal::AttributeValue;

/// Lines in one piece of memory, a byte between each and the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Texts {
    data: String,
    /// Where each ends; the next one begins a byte later.
    ends: Vec<u32>,
}

impl Drop for Texts {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.data).into_bytes());
    }
}

impl Texts {
    /// Empty, with room for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Texts {
        Texts { data: String::from_utf8(buffer::take(bytes)).expect("it is empty"), ends: Vec::new() }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.data.push_str(text);
        self.ends.push(self.data.len() as u32);
        self.data.push('\n');
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    fn start(&self, i: usize) -> usize {
        match i.checked_sub(1) {
            Some(before) => self.ends.get(before).map_or(0, |e| *e as usize + 1),
            None => 0,
        }
    }

    pub(crate) fn get(&self, i: usize) -> &str {
        let end = self.ends.get(i).map_or(0, |e| *e as usize);
        self.data.get(self.start(i)..end).unwrap_or("")
    }

    /// Where one begins, and how long it is.
    pub(crate) fn place(&self, i: usize) -> (u32, u32) {
        let (start, end) = (self.start(i) as u32, self.ends.get(i).copied().unwrap_or(0));
        (start.min(end), end.saturating_sub(start))
    }

    /// All of them, and what stands between.
    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    /// The memory for good.
    pub(crate) fn take_data(&mut self) -> String {
        std::mem::take(&mut self.data)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let text = self.data.get(start..*end as usize).unwrap_or("");
            start = *end as usize + 1;
            text
        })
    }

    /// Those that hold what is looked for, in order.
    pub(crate) fn with(&self, finder: &memchr::memmem::Finder<'_>) -> Vec<u32> {
        let data = self.data.as_bytes();
        let (mut out, mut at, mut row) = (Vec::new(), 0, 0);
        if finder.needle().is_empty() {
            return (0..self.len() as u32).collect();
        }
        // A needle with a line break could be found across two lines, or hide one that begins inside of it.
        if memchr::memchr(b'\n', finder.needle()).is_some() {
            let holds = |(i, t): (usize, &str)| finder.find(t.as_bytes()).map(|_| i as u32);
            return self.iter().enumerate().filter_map(holds).collect();
        }
        while let Some(found) = data.get(at..).and_then(|rest| finder.find(rest)) {
            let place = (at + found) as u32;
            // Hits are often near each other: walk, and leap only if that takes long.
            let mut steps = 0;
            while self.ends.get(row).is_some_and(|end| *end <= place) {
                row += 1;
                steps += 1;
                if steps == 64 {
                    row += self.ends.get(row..).map_or(0, |e| e.partition_point(|end| *end <= place));
                }
            }
            out.push(row as u32);
            at = self.start(row + 1);
            row += 1;
        }
        out
    }
}

/// Byte strings one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Blobs {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Blobs {
    pub(crate) fn push(&mut self, b: &[u8]) {
        self.data.extend_from_slice(b);
        self.ends.push(self.data.len() as u32);
    }

    pub(crate) fn get(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).and_then(|b| self.ends.get(b)).map_or(0, |e| *e as usize);
        self.ends.get(i).and_then(|end| self.data.get(start..*end as usize)).unwrap_or(&[])
    }
}

/// Which rows have a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Presence {
    words: Vec<u64>,
    /// Set bits before each word.
    ranks: Vec<u32>,
}

impl Presence {
    pub(crate) fn of(rows: &[u32], count: usize) -> Presence {
        let mut words = vec![0u64; count.div_ceil(64)];
        for r in rows {
            if let Some(w) = words.get_mut(*r as usize / 64) {
                *w |= 1 << (r % 64);
            }
        }
        Presence::new(words)
    }

    fn new(words: Vec<u64>) -> Presence {
        let mut n = 0;
        let ranks = words
            .iter()
            .map(|w| {
                let before = n;
                n += w.count_ones();
                before
            })
            .collect();
        Presence { words, ranks }
    }

    /// The position among the values.
    fn rank(&self, row: usize) -> Option<usize> {
        let (word, bit) = (*self.words.get(row / 64)?, row % 64);
        let below = word & ((1u64 << bit) - 1);
        (word >> bit & 1 == 1)
            .then(|| *self.ranks.get(row / 64).unwrap_or(&0) as usize + below.count_ones() as usize)
    }

    fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }
}

/// What kind of values a column has. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Type {
    Bool = 0,
    Int = 1,
    Double = 2,
    Text = 3,
    /// Sixteen bytes each.
    Wide = 4,
    /// Eight bytes each.
    Narrow = 5,
    Blob = 6,
}

impl Type {
    pub(crate) fn from_number(n: u8) -> Option<Type> {
        use Type::{Blob, Bool, Double, Int, Narrow, Text, Wide};
        [Bool, Int, Double, Text, Wide, Narrow, Blob].into_iter().find(|t| *t as u8 == n)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Double(Vec<f64>),
    Text(Texts),
    Wide(Vec<[u8; 16]>),
    Narrow(Vec<[u8; 8]>),
    Blob(Blobs),
}

impl Values {
    pub(crate) fn new(kind: Type) -> Values {
        match kind {
            Type::Bool => Values::Bool(Vec::new()),
            Type::Int => Values::Int(Vec::new()),
            Type::Double => Values::Double(Vec::new()),
            Type::Text => Values::Text(Texts::default()),
            Type::Wide => Values::Wide(Vec::new()),
            Type::Narrow => Values::Narrow(Vec::new()),
            Type::Blob => Values::Blob(Blobs::default()),
        }
    }

    pub(crate) fn kind(&self) -> Type {
        match self {
            Values::Bool(_) => Type::Bool,
            Values::Int(_) => Type::Int,
            Values::Double(_) => Type::Double,
            Values::Text(_) => Type::Text,
            Values::Wide(_) => Type::Wide,
            Values::Narrow(_) => Type::Narrow,
            Values::Blob(_) => Type::Blob,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Values::Bool(v) => v.len(),
            Values::Int(v) => v.len(),
            Values::Double(v) => v.len(),
            Values::Text(v) => v.len(),
            Values::Wide(v) => v.len(),
            Values::Narrow(v) => v.len(),
            Values::Blob(v) => v.ends.len(),
        }
    }
}

/// An attribute's value as it stands in a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'a str),
}

impl ValueRef<'_> {
    pub fn to_value(self) -> AttributeValue {
        match self {
            ValueRef::Bool(v) => AttributeValue::Bool(v),
            ValueRef::Int(v) => AttributeValue::Int(v),
            ValueRef::Double(v) => AttributeValue::Double(v),
            ValueRef::Text(v) => AttributeValue::String(v.to_owned()),
        }
    }
}

impl std::fmt::Display for ValueRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ValueRef::Bool(v) => write!(f, "{v}"),
            ValueRef::Int(v) => write!(f, "{v}"),
            ValueRef::Double(v) => write!(f, "{v}"),
            ValueRef::Text(v) => f.write_str(v),
        }
    }
}

/// Which of the values each row with a value has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// Its own, in order.
    Own,
    /// All the first.
    Constant,
    /// That of this number.
    Dictionary(Vec<u16>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    /// `None`: every row.
    pub(crate) present: Option<Presence>,
    pub(crate) order: Order,
    pub(crate) values: Values,
}

impl Column {
    /// The position among [`Column::values`] of a row's value.
    pub(crate) fn index(&self, row: usize) -> Option<usize> {
        let at = match &self.present {
            None => row,
            Some(p) => p.rank(row)?,
        };
        match &self.order {
            Order::Own => Some(at),
            Order::Constant => Some(0),
            Order::Dictionary(d) => d.get(at).map(|i| usize::from(*i)),
        }
    }

    pub(crate) fn int(&self, row: usize) -> Option<i64> {
        match &self.values {
            Values::Int(v) => v.get(self.index(row)?).copied(),
            _ => None,
        }
    }

    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        match &self.values {
            Values::Text(v) => Some(v.get(self.index(row)?)),
            _ => None,
        }
    }

    pub(crate) fn wide(&self, row: usize) -> Option<[u8; 16]> {
        match &self.values {
            Values::Wide(v) => v.get(self.index(row)?).copied(),
            _ => None,
        }
    }

    pub(crate) fn narrow(&self, row: usize) -> Option<[u8; 8]> {
        match &self.values {
            Values::Narrow(v) => v.get(self.index(row)?).copied(),
            _ => None,
        }
    }

    pub(crate) fn blob(&self, row: usize) -> Option<&[u8]> {
        match &self.values {
            Values::Blob(v) => Some(v.get(self.index(row)?)),
            _ => None,
        }
    }

    pub(crate) fn value(&self, row: usize) -> Option<ValueRef<'_>> {
        let i = self.index(row)?;
        Some(match &self.values {
            Values::Bool(v) => ValueRef::Bool(*v.get(i)?),
            Values::Int(v) => ValueRef::Int(*v.get(i)?),
            Values::Double(v) => ValueRef::Double(*v.get(i)?),
            Values::Text(v) => ValueRef::Text(v.get(i)),
            Values::Wide(_) | Values::Narrow(_) | Values::Blob(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_needle() {
        let mut t = Texts::default();
        ["one", "", "two one one", "x\ny", "tail"].iter().for_each(|l| t.push(l));
        let check = |needle: &str, expect: &[u32]| {
            assert_eq!(t.with(&memchr::memmem::Finder::new(needle)), expect, "{needle:?}");
        };
        check("one", &[0, 2]);
        check("x\ny", &[3]);
        check("e\n", &[]);
        check("", &[0, 1, 2, 3, 4]);
        check("tail", &[4]);
        check("nothing", &[]);
        assert_eq!(t.iter().collect::<Vec<_>>(), ["one", "", "two one one", "x\ny", "tail"]);
    }

    #[test]
    fn presence_counts() {
        let rows: Vec<u32> = (0..200).filter(|r| r % 3 == 0).collect();
        let p = Presence::of(&rows, 200);
        for r in 0..200usize {
            assert_eq!(p.rank(r), (r % 3 == 0).then_some(r / 3));
        }
        assert_eq!((p.count(), p.rank(999)), (rows.len(), None));
    }
}
