//! Plain tables: columns as wide as their widest cell, as kubectl prints them.

pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Table { rows: vec![header.iter().map(|h| h.to_uppercase()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| {
            self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let lines = self.rows.iter().map(|r| {
            let cells = r.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
