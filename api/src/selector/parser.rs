//! From the text of a selector to its expression.
//!
//! One pass from left to right. Open parentheses are kept on a stack of our own rather than the thread's, so that
//! no text can overflow it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cursor::Cursor;
use super::{Expr, MAX_NESTING, SelectorError};

const OPERAND: &str = "a label, has(...), all(), global(), \"!\" or \"(\"";
const OPERATOR: &str =
    "an operator (==, !=, in, not in, contains, starts with, ends with) followed by a quoted value";
const STRING: &str = "a quoted string";
const CONNECTIVE: &str = "&&, || or the end";
const CLOSE_CALL: &str = "\")\"";

/// Parses a selector. Blank text is `all()`.
pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    let mut cursor = Cursor::new(text);
    cursor.skip_blanks();
    if cursor.at_end() {
        return Ok(Expr::All);
    }
    let expr = expression(&mut cursor)?;
    // Groups without parentheses in the source get them in the canonical text, which must parse as well.
    if expr.group_depth() > MAX_NESTING {
        return Err(SelectorError::TooDeep { column: 1 });
    }
    Ok(expr)
}

/// What has been read of the inside of a pair of parentheses, or of the whole text.
#[derive(Default)]
struct Group {
    /// Whether an odd number of `!` stands before it.
    negated: bool,
    /// Finished operands of `||`.
    alternatives: Vec<Expr>,
    /// Operands of the `&&` that is being read.
    conjunction: Vec<Expr>,
}

impl Group {
    fn end_conjunction(&mut self) {
        let operands = std::mem::take(&mut self.conjunction);
        self.alternatives.push(single_or(operands, Expr::And));
    }

    fn finish(mut self) -> Expr {
        self.end_conjunction();
        negated_if(self.negated, single_or(self.alternatives, Expr::Or))
    }
}

/// The only operand itself, or the operands joined.
fn single_or(mut operands: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match operands.pop() {
        Some(only) if operands.is_empty() => only,
        last => {
            operands.extend(last);
            join(operands)
        }
    }
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    if negated { Expr::Not(Box::new(expr)) } else { expr }
}

enum Connective {
    And,
    Or,
    End,
}

fn expression(cursor: &mut Cursor<'_>) -> Result<Expr, SelectorError> {
    let mut enclosing: Vec<Group> = Vec::new();
    let mut group = Group::default();
    loop {
        let negated = negation(cursor);
        let start = cursor.position();
        if cursor.eat("(") {
            if enclosing.len() == MAX_NESTING {
                return Err(SelectorError::TooDeep { column: cursor.column_of(start) });
            }
            let inner = Group { negated, ..Group::default() };
            enclosing.push(std::mem::replace(&mut group, inner));
            continue;
        }
        group.conjunction.push(negated_if(negated, test(cursor)?));
        cursor.skip_blanks();
        while cursor.sees(")") {
            let Some(outer) = enclosing.pop() else { return Err(cursor.unexpected(CONNECTIVE)) };
            cursor.eat(")");
            let inner = std::mem::replace(&mut group, outer);
            group.conjunction.push(inner.finish());
            cursor.skip_blanks();
        }
        match connective(cursor, !enclosing.is_empty())? {
            Connective::And => {}
            Connective::Or => group.end_conjunction(),
            Connective::End => return Ok(group.finish()),
        }
    }
}

/// Reads a row of `!`: whether their number is odd.
fn negation(cursor: &mut Cursor<'_>) -> bool {
    let mut negated = false;
    loop {
        cursor.skip_blanks();
        if !cursor.eat("!") {
            return negated;
        }
        negated = !negated;
    }
}

/// Reads what stands after an operand; `nested` if parentheses are open.
fn connective(cursor: &mut Cursor<'_>, nested: bool) -> Result<Connective, SelectorError> {
    if cursor.eat("&&") {
        Ok(Connective::And)
    } else if cursor.eat("||") {
        Ok(Connective::Or)
    } else if cursor.at_end() && !nested {
        Ok(Connective::End)
    } else {
        let expected = if cursor.sees("&") {
            "&&"
        } else if cursor.sees("|") {
            "||"
        } else if nested {
            "&&, || or \")\""
        } else {
            CONNECTIVE
        };
        Err(cursor.unexpected(expected))
    }
}

/// Reads a test of one label or a constant.
fn test(cursor: &mut Cursor<'_>) -> Result<Expr, SelectorError> {
    if cursor.eat("has(") {
        let label = cursor.label("a label")?.into();
        cursor.expect(")", CLOSE_CALL)?;
        Ok(Expr::Has(label))
    } else if cursor.eat("all(") {
        cursor.expect(")", CLOSE_CALL)?;
        Ok(Expr::All)
    } else if cursor.eat("global(") {
        cursor.expect(")", CLOSE_CALL)?;
        Ok(Expr::Global)
    } else {
        let label = cursor.label(OPERAND)?.into();
        comparison(cursor, label)
    }
}

/// Reads the operator and value that follow a label.
fn comparison(cursor: &mut Cursor<'_>, label: Arc<str>) -> Result<Expr, SelectorError> {
    cursor.skip_blanks();
    let start = cursor.position();
    if cursor.eat("==") {
        return Ok(Expr::Eq(label, value(cursor)?));
    }
    if cursor.eat("!=") {
        return Ok(Expr::NotEq(label, value(cursor)?));
    }
    match cursor.word() {
        "contains" => Ok(Expr::Contains(label, value(cursor)?)),
        "startswith" => Ok(Expr::StartsWith(label, value(cursor)?)),
        "endswith" => Ok(Expr::EndsWith(label, value(cursor)?)),
        "in" => Ok(Expr::In(label, set(cursor)?)),
        "notin" => Ok(Expr::NotIn(label, set(cursor)?)),
        "starts" => {
            second_word(cursor, "with", "\"with\" after \"starts\"")?;
            Ok(Expr::StartsWith(label, value(cursor)?))
        }
        "ends" => {
            second_word(cursor, "with", "\"with\" after \"ends\"")?;
            Ok(Expr::EndsWith(label, value(cursor)?))
        }
        "not" => {
            second_word(cursor, "in", "\"in\" after \"not\"")?;
            Ok(Expr::NotIn(label, set(cursor)?))
        }
        word => {
            let expected = match word {
                "" if cursor.sees("=") => "==",
                "" if cursor.sees("!") => "!=",
                _ => OPERATOR,
            };
            Err(cursor.unexpected_at(start, expected))
        }
    }
}

/// Reads the second word of an operator.
fn second_word(cursor: &mut Cursor<'_>, word: &str, expected: &'static str) -> Result<(), SelectorError> {
    cursor.skip_blanks();
    let start = cursor.position();
    if cursor.word() == word { Ok(()) } else { Err(cursor.unexpected_at(start, expected)) }
}

fn value(cursor: &mut Cursor<'_>) -> Result<Arc<str>, SelectorError> {
    match cursor.string()? {
        Some(value) => Ok(value.into()),
        None => Err(cursor.unexpected(STRING)),
    }
}

fn set(cursor: &mut Cursor<'_>) -> Result<BTreeSet<Arc<str>>, SelectorError> {
    cursor.expect("{", "\"{\"")?;
    let mut values = BTreeSet::new();
    let mut closing = "a quoted string or \"}\"";
    while let Some(value) = cursor.string()? {
        values.insert(value.into());
        cursor.skip_blanks();
        if !cursor.eat(",") {
            closing = "\",\" or \"}\"";
            break;
        }
    }
    cursor.expect("}", closing)?;
    Ok(values)
}
