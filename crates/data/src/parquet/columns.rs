//! Which columns of a Parquet file hold the image and what is said of it.

use crate::record::{CAPTION, IMAGE, Names};
use anyhow::{Result, bail};
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

/// Lists of turns.
const TURNS: [&str; 2] = ["conversations", "messages"];

/// The columns of a file, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Those of the image.
    pub seen: Seen,
    /// Those of what is said.
    pub said: Said,
}

/// The columns of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its bytes.
    pub bytes: Option<usize>,
    /// Its path, for where there are no bytes.
    pub path: Option<usize>,
}

/// The columns of what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A caption, or a list of them.
    Captions(usize),
    /// A list of turns.
    Turns {
        /// Who speaks.
        speaker: usize,
        /// What is said.
        text: usize,
    },
}

impl Columns {
    /// The columns of a file with this schema.
    ///
    /// # Errors
    /// The columns that were found, and those that are expected.
    pub fn find(schema: &SchemaDescriptor, names: &Names) -> Result<Self> {
        let of = |root: &str| below(schema, root);
        let seen = match &names.image {
            Some(name) => seen(&of(name)),
            None => IMAGE.iter().find_map(|name| seen(&of(name))),
        };
        let said_of = |name: &str| turns(&of(name)).or_else(|| captions(&of(name)));
        let said = match &names.caption {
            Some(name) => said_of(name),
            None => TURNS.iter().chain(&CAPTION).find_map(|name| said_of(name)),
        };
        let (Some(seen), Some(said)) = (seen, said) else {
            let roots = schema.root_schema().get_fields().iter().map(|field| format!("{:?}", field.name()));
            bail!("found the columns {}, {}", roots.collect::<Vec<_>>().join(", "), names.expected())
        };
        Ok(Self { seen, said })
    }

    /// A column of what is said.
    pub fn said_first(&self) -> usize {
        match self.said {
            Said::Captions(column) | Said::Turns { text: column, .. } => column,
        }
    }
}

/// The columns of a field.
fn below<'s>(schema: &'s SchemaDescriptor, root: &str) -> Vec<(usize, &'s ColumnDescriptor)> {
    let all = schema.columns().iter().enumerate().map(|(at, column)| (at, column.as_ref()));
    all.filter(|(_, column)| column.path().parts().first().is_some_and(|first| first == root)).collect()
}

fn is_bytes(column: &ColumnDescriptor) -> bool {
    column.physical_type() == Type::BYTE_ARRAY
}

fn is_text(column: &ColumnDescriptor) -> bool {
    let is_said = matches!(column.logical_type_ref(), Some(LogicalType::String))
        || matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM);
    is_bytes(column) && is_said
}

/// The columns of an image: `{bytes, path}`, bytes, or a text that is a path.
fn seen(columns: &[(usize, &ColumnDescriptor)]) -> Option<Seen> {
    let mut seen = Seen::default();
    for (at, column) in columns.iter().filter(|(_, c)| is_bytes(c) && c.max_rep_level() == 0) {
        match column.path().parts() {
            [_] if is_text(column) => seen.path = Some(*at),
            [_] => seen.bytes = Some(*at),
            [_, name] if name == "bytes" => seen.bytes = Some(*at),
            [_, name] if name == "path" => seen.path = Some(*at),
            _ => {}
        }
    }
    (seen != Seen::default()).then_some(seen)
}

/// A text, or a list of them.
fn captions(columns: &[(usize, &ColumnDescriptor)]) -> Option<Said> {
    match columns {
        [(at, column)] if is_text(column) && column.max_rep_level() <= 1 => Some(Said::Captions(*at)),
        _ => None,
    }
}

/// A list of `{from, value}` or `{role, content}`.
fn turns(columns: &[(usize, &ColumnDescriptor)]) -> Option<Said> {
    let named = |names: [&str; 2]| {
        let found = columns.iter().find(|(_, c)| is_text(c) && c.max_rep_level() == 1 && names.contains(&c.name()));
        found.map(|(at, _)| *at)
    };
    Some(Said::Turns { speaker: named(["from", "role"])?, text: named(["value", "content"])? })
}
