//! The token index of a partition: which blocks hold a word. Built by tantivy in memory, kept as one section of
//! the partition's file. One document for each block, in order, so that a document's number is the block's.

use std::path::{Path, PathBuf};

use tantivy::directory::{Directory, RamDirectory};
use tantivy::index::SegmentComponent;
use tantivy::indexer::SingleSegmentIndexWriter;
use tantivy::postings::Postings;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{DocSet, Index, InvertedIndexReader, TERMINATED, TantivyDocument};

use crate::codec::{get_bytes, get_uvarint, put_bytes, put_uvarint};
use crate::error::Error;
use crate::tokens::Place;

const FIELD: &str = "t";
/// What tantivy may use while it builds; its least is 15 MB.
const BUILD_BYTES: usize = 15_000_000;
/// Dictionaries larger than this are not walked for a part of a word: scanning is faster.
const WALK: usize = 300_000;

/// Every file a segment of ours can have.
const COMPONENTS: [SegmentComponent; 6] = [
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::FastFields,
    SegmentComponent::FieldNorms,
    SegmentComponent::Terms,
    SegmentComponent::Store,
];

fn schema() -> Schema {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("whitespace")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    let mut b = Schema::builder();
    b.add_text_field(FIELD, TextOptions::default().set_indexing_options(indexing));
    b.build()
}

/// An index being built: one document for each block, in order.
pub(crate) struct Builder {
    directory: RamDirectory,
    writer: SingleSegmentIndexWriter,
    field: Field,
}

impl Builder {
    pub(crate) fn new() -> Result<Builder, Error> {
        let schema = schema();
        let field = schema.get_field(FIELD)?;
        let directory = RamDirectory::create();
        let writer =
            Index::builder().schema(schema).single_segment_index_writer(directory.clone(), BUILD_BYTES)?;
        Ok(Builder { directory, writer, field })
    }

    /// A block's tokens, separated by spaces.
    pub(crate) fn add(&mut self, tokens: &str) -> Result<(), Error> {
        let mut doc = TantivyDocument::default();
        doc.add_text(self.field, tokens);
        self.writer.add_document(doc)?;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, Error> {
        let directory = self.directory;
        let index = self.writer.finalize()?;
        let mut files: Vec<PathBuf> = vec![PathBuf::from("meta.json")];
        for segment in index.searchable_segment_metas()? {
            files.extend(COMPONENTS.map(|c| segment.relative_path(c)));
        }
        let mut out = Vec::new();
        let mut parts: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for path in files {
            // Those without content were never written.
            if !directory.exists(&path).map_err(tantivy::TantivyError::from)? {
                continue;
            }
            let data = if path == Path::new("meta.json") {
                directory.atomic_read(&path).map_err(tantivy::TantivyError::from)?
            } else {
                let slice = directory.open_read(&path).map_err(tantivy::TantivyError::from)?;
                slice.read_bytes().map_err(tantivy::TantivyError::from)?.to_vec()
            };
            parts.push((path, data));
        }
        put_uvarint(&mut out, parts.len() as u64);
        for (path, data) in parts {
            put_bytes(&mut out, path.to_string_lossy().as_bytes());
            put_bytes(&mut out, &data);
        }
        Ok(out)
    }
}

pub(crate) struct Sidecar {
    inverted: std::sync::Arc<InvertedIndexReader>,
    field: Field,
}

impl Sidecar {
    /// `None` if the bytes are not an index.
    pub(crate) fn open(mut d: &[u8]) -> Result<Option<Sidecar>, Error> {
        let d = &mut d;
        let directory = RamDirectory::create();
        let Some(n) = get_uvarint(d) else { return Ok(None) };
        for _ in 0..n {
            let (Some(name), Some(data)) = (get_bytes(d), get_bytes(d)) else { return Ok(None) };
            let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
            directory.atomic_write(Path::new(name), data).map_err(tantivy::TantivyError::from)?;
        }
        let index = Index::open(directory)?;
        let reader = index.reader_builder().reload_policy(tantivy::ReloadPolicy::Manual).try_into()?;
        let searcher = tantivy::IndexReader::searcher(&reader);
        let field = index.schema().get_field(FIELD)?;
        match searcher.segment_readers().first() {
            Some(s) => Ok(Some(Sidecar { inverted: s.inverted_index(field)?, field })),
            None => Ok(None),
        }
    }

    /// Blocks with a token in which `word` stands like that. `None` if it is cheaper not to ask.
    pub(crate) fn blocks(&self, place: Place, word: &str) -> Result<Option<Vec<u32>>, Error> {
        let io = |e: std::io::Error| Error::from(tantivy::TantivyError::from(e));
        let mut out = Vec::new();
        if place == Place::Whole {
            let term = tantivy::Term::from_field_text(self.field, word);
            if let Some(mut p) = self.inverted.read_postings(&term, IndexRecordOption::Basic).map_err(io)? {
                collect(&mut p, &mut out);
            }
            return Ok(Some(out));
        }
        let terms = self.inverted.terms();
        if terms.num_terms() > WALK {
            return Ok(None);
        }
        let mut stream = match place {
            Place::Start => terms.range().ge(word.as_bytes()).into_stream().map_err(io)?,
            _ => terms.stream().map_err(io)?,
        };
        while stream.advance() {
            let term = stream.key();
            let fits = match place {
                Place::Start if !term.starts_with(word.as_bytes()) => break,
                Place::Start | Place::Whole => true,
                Place::End => term.ends_with(word.as_bytes()),
                Place::Within => {
                    word.len() <= term.len() && term.windows(word.len().max(1)).any(|w| w == word.as_bytes())
                }
            };
            if fits {
                let mut p = self
                    .inverted
                    .read_postings_from_terminfo(stream.value(), IndexRecordOption::Basic)
                    .map_err(io)?;
                collect(&mut p, &mut out);
            }
        }
        out.sort_unstable();
        out.dedup();
        Ok(Some(out))
    }
}

fn collect(p: &mut impl Postings, out: &mut Vec<u32>) {
    let mut doc = p.doc();
    while doc != TERMINATED {
        out.push(doc);
        doc = DocSet::advance(p);
    }
}
