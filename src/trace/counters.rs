//! Named counters as plain fields: counting is one addition, and everything that has to walk over them (sums over
//! cores, reports) is written once, here.

/// A set of counters made by [`counters!`].
pub trait Counters: Copy + Default {
    /// Names of the fields, in the order of [`Counters::values`].
    const NAMES: &'static [&'static str];
    /// Calls `f` with every value, in the order of [`Counters::NAMES`].
    fn values(&self, f: impl FnMut(u64));
    /// Adds every counter of `other` to this one's.
    fn add(&mut self, other: &Self);
    /// What was counted between `earlier` and this state of the same counters.
    #[must_use]
    fn since(&self, earlier: &Self) -> Self;
}

/// Makes a struct of `u64` counters: public, documented fields, `Copy`, all 0 by default, with
/// [`Counters`](crate::trace::Counters) implemented. Sums wrap, as counters on a page of statistics do.
///
/// ```
/// use pollux::trace::{Counters, counters};
/// counters! {
///     /// What a link did.
///     pub struct Link {
///         /// Frames in.
///         received,
///         /// Frames out.
///         sent,
///     }
/// }
/// let mut link = Link::default();
/// link.sent += 2;
/// let mut total = link;
/// total.add(&link);
/// assert_eq!((total.sent, total.since(&link).sent, Link::NAMES), (4, 2, &["received", "sent"][..]));
/// ```
#[macro_export]
macro_rules! trace_counters {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        $vis struct $name {
            $($(#[$field_meta])* pub $field: u64,)+
        }
        impl $crate::trace::Counters for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];
            fn values(&self, mut f: impl FnMut(u64)) {
                $(f(self.$field);)+
            }
            fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }
            fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.wrapping_sub(earlier.$field)),+ }
            }
        }
    };
}

pub use crate::trace_counters as counters;

#[cfg(test)]
mod tests {
    use super::{Counters, counters};

    counters! {
        /// Test counters.
        struct Trio {
            /// One.
            one,
            /// Two.
            two,
            /// Trio.
            three
        }
    }

    #[test]
    fn sums_differences_and_names_go_field_by_field() {
        let a = Trio { one: 1, two: 2, three: 3 };
        let mut sum = a;
        sum.add(&Trio { one: 10, two: 20, three: u64::MAX });
        assert_eq!(sum, Trio { one: 11, two: 22, three: 2 });
        assert_eq!(sum.since(&a), Trio { one: 10, two: 20, three: u64::MAX });
        let mut values = Vec::new();
        sum.values(|v| values.push(v));
        assert_eq!((Trio::NAMES, values), (&["one", "two", "three"][..], vec![11, 22, 2]));
    }
}
