//! stub
use super::{Arity, Verb};
pub(crate) const VERB: Verb = Verb {
    name: "inspect",
    usage: "",
    about: "",
    arity: Arity::None,
    flags_first: false,
    flags: |c| c,
    run: |_, _| Err(crate::failure::Failure::plain("stub")),
};
pub(crate) const CONTAINER: Verb = VERB;
pub(crate) const IMAGE: Verb = VERB;
