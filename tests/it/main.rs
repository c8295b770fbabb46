//! What holds for the whole workspace: the house's rules here, a running broker and real clients in the other files.

mod house;
