//! Where the parts meet: each module joins two siblings that do not know each
//! other. They carry; they decide nothing.

pub(crate) mod announce;
pub(crate) mod audit;
pub(crate) mod clock;
pub(crate) mod definitions;
pub(crate) mod exchange;
pub(crate) mod forwards;
pub(crate) mod join;
pub(crate) mod memory;
pub(crate) mod own_keys;
pub(crate) mod phone_book;
pub(crate) mod prove;
pub(crate) mod replica;
pub(crate) mod storage;
pub(crate) mod witness;
