//! Which statements are let in: those that read.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::Error;

/// Parentheses and operators of different strength that may stand in one another.
const NESTING: usize = 64;

/// Operators in a statement: planning a chain of them takes time that grows with its square, and cannot be stopped.
const OPERATORS: usize = 500;

/// Parses one statement that reads. SQLOptions look at its plan once more, because a query can hide a change in its
/// depths (`SELECT … INTO`).
pub(crate) fn parse(text: &str, limit: usize) -> Result<Statement, Error> {
    if text.len() > limit {
        return Err(Error::Query(format!("the statement is longer than {limit} bytes")));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize()
        .map_err(|e| Error::Query(format!("syntax error: {e}")))?;
    if tokens.iter().filter(|t| is_operator(t)).count() > OPERATORS {
        return Err(Error::Query(format!("the statement has more than {OPERATORS} operators")));
    }
    let mut all = DFParserBuilder::new(text)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(NESTING)
        .build()
        .and_then(|mut p| p.parse_statements())
        .map_err(|e| Error::from_datafusion(e, 0))?;
    let statement = all.pop_front().ok_or_else(|| Error::Query("there is no statement".to_owned()))?;
    if !all.is_empty() {
        return Err(Error::Query("give one statement at a time".to_owned()));
    }
    reads(&statement)?;
    Ok(statement)
}

fn is_operator(t: &Token) -> bool {
    match t {
        Token::Word(w) => matches!(w.keyword, Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::UNION),
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => true,
        Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => true,
        Token::Pipe | Token::Ampersand | Token::Caret | Token::DoubleColon | Token::LBracket => true,
        _ => false,
    }
}

fn reads(statement: &Statement) -> Result<(), Error> {
    match statement {
        Statement::Explain(e) => reads(&e.statement),
        Statement::CreateExternalTable(_) => Err(Error::Refused("CREATE EXTERNAL TABLE".to_owned())),
        Statement::CopyTo(_) => Err(Error::Refused("COPY".to_owned())),
        Statement::Reset(_) => Err(Error::Refused("RESET".to_owned())),
        Statement::Statement(s) => match s.as_ref() {
            Sql::Query(_)
            | Sql::ExplainTable { .. }
            | Sql::ShowTables { .. }
            | Sql::ShowColumns { .. }
            | Sql::ShowFunctions { .. } => Ok(()),
            Sql::Explain { statement, .. } => match statement.as_ref() {
                Sql::Query(_) => Ok(()),
                other => Err(Error::Refused(verb(&other.to_string()))),
            },
            other => Err(Error::Refused(verb(&other.to_string()))),
        },
    }
}

/// The statement's first two words, such as `DROP TABLE`, or one if the second is a name.
fn verb(text: &str) -> String {
    let words = text.split_whitespace().take(2).enumerate();
    let upper = words.take_while(|(i, w)| *i == 0 || w.chars().all(|c| c.is_ascii_uppercase()));
    upper.map(|(_, w)| w.to_ascii_uppercase()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parser is not optimised: nested statements need the stack that the engine's threads have.
    #[test]
    fn only_reading_is_let_in() {
        let thread = std::thread::Builder::new().stack_size(crate::engine::STACK);
        thread.spawn(statements).expect("a thread").join().expect("no statement fails");
    }

    fn statements() {
        let allowed = |sql: &str| parse(sql, 1 << 16).map(|_| ()).map_err(|e| e.to_string());
        for sql in [
            "select 1",
            "with a as (select 1) select * from a;",
            "explain select 1",
            "explain analyze select 1",
            "describe metrics",
            "show tables",
            "show columns from logs",
            "values (1, 2)",
        ] {
            assert_eq!(allowed(sql), Ok(()), "{sql}");
        }
        let refused = |sql: &str, word: &str| {
            let e = allowed(sql).expect_err(sql);
            assert!(e.starts_with(word) && e.contains("only reads"), "{sql}: {e}");
        };
        refused("create table t (a int)", "CREATE TABLE");
        refused("create external table t stored as csv location '/etc/passwd'", "CREATE EXTERNAL TABLE");
        refused("create view v as select 1", "CREATE VIEW");
        refused("drop table metrics", "DROP TABLE");
        refused("insert into metrics values (1)", "INSERT INTO");
        refused("delete from logs", "DELETE FROM");
        refused("update logs set body = ''", "UPDATE");
        refused("copy logs to '/tmp/x'", "COPY");
        refused("set datafusion.execution.batch_size = 1", "SET");
        refused("explain create table t (a int)", "CREATE TABLE");
        refused("truncate table logs", "TRUNCATE TABLE");
        for sql in ["", "select 1; select 2", "selec 1", &"(".repeat(5000)] {
            assert!(allowed(sql).is_err(), "{sql}");
        }
    }
}
