//! Calico's selector language: expressions over labels that pick endpoints, network sets and namespaces.
//!
//! A selector is parsed once, where its text enters; everything behind the API holds a [`Selector`].
//!
//! ```text
//! selector   = [ or ]                              blank means all()
//! or         = and { "||" and }
//! and        = operand { "&&" operand }
//! operand    = { "!" } ( "(" or ")" | test )
//! test       = "has(" LABEL ")" | "all()" | "global()"
//!            | LABEL ( "==" | "!=" | "contains" | "starts with" | "ends with" ) STRING
//!            | LABEL ( "in" | "not in" ) "{" [ STRING { "," STRING } [ "," ] ] "}"
//! STRING     = "'" { any but ' } "'" | '"' { any but " } '"'
//! LABEL      = 1 to 512 of a-z A-Z 0-9 _ . / -
//! ```
//!
//! Blanks are space and tab, nothing else. `!` applies to the whole test that follows (`!a == "b"` is
//! `!(a == "b")`), and a row of them counts by parity. See <https://docs.tigera.io/calico/latest/reference/resources/networkpolicy#selector>.
//!
//! # Composing selectors
//!
//! Calico joins selectors as text and parses the result; the ids of ip sets depend on how. Do the same here:
//! `Selector::parse(&format!("({a}) && ({b})"))`, with [`Selector::source`] for a part that Calico takes as
//! the user wrote it, and the plain `{a}` (canonical text) for one that it has parsed before. Parsing is
//! linear in the text. Parentheses that enclose a whole part leave no trace in the canonical text, those
//! that group a `&&` or `||` inside another stay: `(a && b) && c` is not `a && b && c`.

mod cursor;
mod error;
mod expr;
mod parser;
#[cfg(test)]
mod properties;
mod restriction;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use error::SelectorError;
pub use expr::Expr;
pub use restriction::Restriction;

use crate::id::unique_id;
use crate::labels::NAMESPACE_LABEL_PREFIX;

/// The longest label that a selector may name, in characters.
pub const MAX_LABEL: usize = 512;

/// The most groups (parentheses, `&&`, `||`) that may stand within each other.
///
/// More than any text within the API's limit of 1024 characters can nest, few enough to walk by recursion.
pub const MAX_NESTING: usize = 600;

/// Something that has labels: an endpoint with what it inherits, a network set, a namespace.
pub trait Labels {
    /// The value of the label `key`, `None` if there is no such label.
    fn get(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key).map(String::as_str)
    }
}

/// A parsed selector. Cheap to clone.
///
/// Compared, hashed and displayed by its canonical text; (de)serialised as the text that the user wrote.
#[derive(Clone)]
pub struct Selector(Arc<Parsed>);

struct Parsed {
    /// `None` if the user wrote the canonical text.
    source: Option<Box<str>>,
    canonical: Box<str>,
    expr: Expr,
}

impl Selector {
    /// Parses a selector, in time linear in its length.
    ///
    /// # Errors
    /// The first thing that is wrong, with its column. The API's limit on the length of the text is not
    /// checked here, since internal selectors are composed of several.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let expr = parser::parse(text)?;
        let canonical = expr.to_string().into_boxed_str();
        let source = (*canonical != *text).then(|| text.into());
        Ok(Self(Arc::new(Parsed { source, canonical, expr })))
    }

    /// The selector of an expression that was built by code, just as if its canonical text had been parsed:
    /// a double negation disappears, and so does an `And` or `Or` with one operand. One with none is
    /// `all()`, or `!all()` for `Or`.
    ///
    /// # Errors
    /// If the expression has no canonical text: a label with characters that no label has, a value with both
    /// kinds of quotes, too long a label, too much nesting.
    pub fn from_expr(expr: &Expr) -> Result<Self, SelectorError> {
        expr.check_representable()?;
        Self::parse(&expr.to_string())
    }

    /// `all()`.
    pub fn all() -> Self {
        Self(Arc::new(Parsed { source: None, canonical: "all()".into(), expr: Expr::All }))
    }

    /// The text as the user wrote it.
    pub fn source(&self) -> &str {
        self.0.source.as_deref().unwrap_or(&self.0.canonical)
    }

    /// The text that all spellings of this expression share: it is what the id is made of.
    ///
    /// Operands stay in their order and nothing is simplified, apart from rows of `!`.
    pub fn canonical(&self) -> &str {
        &self.0.canonical
    }

    /// The id of the ip set of what this selects: `s:` and 38 characters.
    pub fn id(&self) -> String {
        unique_id("s", self.canonical())
    }

    /// The expression.
    pub fn expr(&self) -> &Expr {
        &self.0.expr
    }

    /// Whether this is just `all()`. Other expressions may hold for everything, too.
    pub fn is_all(&self) -> bool {
        *self.expr() == Expr::All
    }

    /// Whether this selects something with these labels.
    pub fn matches(&self, labels: &dyn Labels) -> bool {
        self.expr().matches(labels)
    }

    /// Whether `global()` occurs. It means something only in the `namespaceSelector` of a rule.
    pub fn contains_global(&self) -> bool {
        self.expr().contains_global()
    }

    /// This selector with `prefix` before every label: `pcns.` and `pcsa.` make a selector of endpoints from
    /// one of namespaces or service accounts, whose labels endpoints inherit under that prefix.
    ///
    /// # Errors
    /// If a label becomes too long or, by an odd prefix, no label.
    pub fn prefix_labels(&self, prefix: &str) -> Result<Self, SelectorError> {
        Self::from_expr(&self.expr().prefix_labels(prefix))
    }

    /// The selector of the endpoints whose namespace this selects, for the `namespaceSelector` of a rule.
    ///
    /// Labels get the prefix `pcns.`; `all()` becomes "has a namespace", `global()` "has none". A `pcns.` label
    /// exists only in a namespace, but `!=`, `not in` and `!` hold outside of all namespaces, too, as in Calico.
    ///
    /// Calico replaces the text `all()` within quoted values, too; here values stay as they are. No value of
    /// a Kubernetes label can tell the difference.
    ///
    /// # Errors
    /// If a label becomes too long.
    pub fn namespace_clause(&self) -> Result<Self, SelectorError> {
        Self::from_expr(&self.expr().prefix_labels(NAMESPACE_LABEL_PREFIX).constants_as_namespace_tests())
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.canonical() == other.canonical()
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical().cmp(other.canonical())
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|e| serde::de::Error::custom(format_args!("bad selector: {e}")))
    }
}
