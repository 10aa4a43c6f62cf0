//! Settings of a family with names of its own, as one table: keys, what they mean, their types and defaults.

/// Declares a family's `Config`: each setting is an option, and `filled` sets what is not set to the default that
/// stands beside its type.
///
/// ```
/// limber_core::family_settings! {
///     /// The settings.
///     Config {
///         /// LM width D.
///         n_embd: usize = 768,
///         /// Width of the MLP.
///         n_inner: usize,
///     }
/// }
///
/// use limber_core::decoder_family::FamilySettings;
/// let config = Config::default().filled();
/// assert_eq!((config.n_embd, config.n_inner), (Some(768), None));
/// ```
#[macro_export]
macro_rules! family_settings {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$attribute:meta])* $key:ident: $type:ty $(= $default:expr)?,)* }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$attribute])* pub $key: Option<$type>,)*
        }

        impl $crate::decoder_family::FamilySettings for $name {
            fn filled(self) -> Self {
                Self { $($key: self.$key$(.or(Some($default)))?,)* }
            }
        }
    };
}

/// Settings with their keys, for [`DecoderFamily::spec`](crate::DecoderFamily::spec): `keyed!(config: n_embd, n_head)`.
#[macro_export]
macro_rules! keyed {
    ($config:ident: $($key:ident),*) => {
        [$((stringify!($key), $config.$key)),*]
    };
}
