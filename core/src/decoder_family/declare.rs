//! Settings of a family with names of its own, as one table: keys, what they mean, their types and defaults.

/// Declares a family's `Config`: each setting is an option, and `filled` sets what is not set to the default that
/// stands beside its type. `sizes` are whole numbers from 1 on; `Config::sized(&[..])` sets the first of them.
///
/// ```
/// limber_core::family_settings! {
///     /// The settings.
///     Config {
///         sizes: {
///             /// LM width D.
///             n_embd = 768,
///             /// Width of the MLP.
///             n_inner,
///         },
///         own: {
///             /// Epsilon of the layer norms.
///             layer_norm_epsilon: f64 = 1e-5,
///         },
///     }
/// }
///
/// use limber_core::decoder_family::FamilySettings;
/// let config = Config::default().filled();
/// assert_eq!((config.n_embd, config.n_inner, config.layer_norm_epsilon), (Some(768), None, Some(1e-5)));
/// ```
#[macro_export]
macro_rules! family_settings {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$model_doc:meta])* model,)?
            sizes: { $($(#[$size_doc:meta])* $size:ident $(= $size_default:expr)?,)* },
            own: { $($(#[$attribute:meta])* $key:ident: $type:ty $(= $default:expr)?,)* },
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$model_doc])* pub model: Option<String>,)?
            $($(#[$size_doc])* #[schemars(range(min = 1))] pub $size: Option<usize>,)*
            $($(#[$attribute])* pub $key: Option<$type>,)*
        }

        impl $name {
            /// The sizes in the order of the table, as many as are given.
            #[allow(dead_code)]
            pub(crate) fn sized(values: &[usize]) -> Self {
                let mut values = values.iter().copied();
                Self { $($size: values.next(),)* ..Self::default() }
            }
        }

        impl $crate::decoder_family::FamilySettings for $name {
            #[allow(clippy::needless_update)]
            fn filled(self) -> Self {
                Self {
                    $($size: self.$size$(.or(Some($size_default)))?,)*
                    $($key: self.$key$(.or(Some($default)))?,)*
                    ..self
                }
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
