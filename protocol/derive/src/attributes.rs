//! What the attributes say, checked: a wrong attribute is a compile error at its place.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Expr, ExprLit, Field, GenericArgument, Lit, LitInt, LitStr, PathArguments, Result, Type};

/// A closed range of versions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Range {
    pub(crate) const ALL: Self = Self { min: 0, max: i16::MAX };
    pub(crate) const NONE: Self = Self { min: 1, max: 0 };

    /// Reads `"3+"`, `"0-8"`, `"2"` or `"none"`.
    fn parse(text: &LitStr) -> Result<Self> {
        let value = text.value();
        let wrong = || syn::Error::new(text.span(), "versions are \"3+\", \"0-8\", \"2\" or \"none\"");
        let number = |digits: &str| digits.parse::<i16>().map_err(|_| wrong());
        let range = if value == "none" {
            Self::NONE
        } else if let Some(min) = value.strip_suffix('+') {
            Self { min: number(min)?, max: i16::MAX }
        } else if let Some((min, max)) = value.split_once('-') {
            Self { min: number(min)?, max: number(max)? }
        } else {
            Self { min: number(&value)?, max: number(&value)? }
        };
        if range.min < 0 || (range.max < range.min && range != Self::NONE) {
            return Err(wrong());
        }
        Ok(range)
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// A condition on `at` that holds in these versions and no others.
    pub(crate) fn condition(self) -> TokenStream {
        let (min, max) = (self.min, self.max);
        match (min, max) {
            (0, i16::MAX) => quote!(true),
            (_, i16::MAX) => quote!(at.version >= #min),
            (0, _) => quote!(at.version <= #max),
            _ if self.is_none() => quote!(false),
            _ => quote!((#min..=#max).contains(&at.version)),
        }
    }
}

impl ToTokens for Range {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let (min, max) = (self.min, self.max);
        tokens.extend(quote!(::madang_protocol::schema::Versions { min: #min, max: #max }));
    }
}

/// What `#[message(..)]` says.
pub(crate) struct MessageAttributes {
    pub(crate) versions: Range,
    pub(crate) flexible: Range,
}

impl MessageAttributes {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Option<Self>> {
        let Some(attribute) = attributes.iter().find(|attribute| attribute.path().is_ident("message")) else {
            return Ok(None);
        };
        let mut versions = None;
        let mut flexible = Range::NONE;
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("versions") {
                versions = Some(Range::parse(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("flexible") {
                flexible = Range::parse(&meta.value()?.parse()?)?;
            } else {
                return Err(meta.error("expected `versions` or `flexible`"));
            }
            Ok(())
        })?;
        match versions {
            Some(versions) => Ok(Some(Self { versions, flexible })),
            None => Err(syn::Error::new_spanned(attribute, "`versions` is missing")),
        }
    }
}

/// What a field's default is.
pub(crate) enum FieldDefault {
    /// Zero, false, empty.
    Empty,
    Null,
    Value(Expr),
}

/// What a field's type and its `#[field(..)]` say.
pub(crate) struct FieldAttributes {
    pub(crate) versions: Range,
    pub(crate) nullable: Range,
    /// The tag and the versions in which the field is a tagged one.
    pub(crate) tag: Option<(u32, Range)>,
    pub(crate) default: FieldDefault,
    pub(crate) ignorable: bool,
    /// The `T` of an `Option<T>`.
    pub(crate) optional: Option<Type>,
}

impl FieldAttributes {
    pub(crate) fn parse(field: &Field) -> Result<Self> {
        let mut versions = Range::ALL;
        let (mut nullable, mut tag, mut tagged, mut default, mut ignorable) = (None, None, None, None, false);
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("field")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("versions") {
                    versions = Range::parse(&meta.value()?.parse()?)?;
                } else if meta.path.is_ident("nullable") {
                    let given = if meta.input.peek(syn::Token![=]) {
                        Some(Range::parse(&meta.value()?.parse()?)?)
                    } else {
                        None
                    };
                    nullable = Some(given);
                } else if meta.path.is_ident("tag") {
                    tag = Some(meta.value()?.parse::<LitInt>()?.base10_parse::<u32>()?);
                } else if meta.path.is_ident("tagged") {
                    tagged = Some(Range::parse(&meta.value()?.parse()?)?);
                } else if meta.path.is_ident("default") {
                    default = Some(meta.value()?.parse::<Expr>()?);
                } else if meta.path.is_ident("ignorable") {
                    ignorable = true;
                } else {
                    return Err(meta.error("expected versions, nullable, tag, tagged, default or ignorable"));
                }
                Ok(())
            })?;
        }
        let optional = option_of(&field.ty);
        if optional.is_none() && nullable.is_some() {
            return Err(syn::Error::new_spanned(&field.ty, "only an `Option` can be nullable"));
        }
        if tagged.is_some() && tag.is_none() {
            return Err(syn::Error::new_spanned(field, "`tagged` without a `tag`"));
        }
        let default = match default {
            Some(Expr::Path(path)) if path.path.is_ident("null") => FieldDefault::Null,
            Some(value) => FieldDefault::Value(value),
            // Records have no empty value: their default is null.
            None if optional.as_ref().is_some_and(is_payload) => FieldDefault::Null,
            None => FieldDefault::Empty,
        };
        let nullable = nullable.map_or(Range::NONE, |given| given.unwrap_or(versions));
        let tag = tag.map(|tag| (tag, tagged.unwrap_or(versions)));
        Ok(Self { versions, nullable, tag, default, ignorable, optional })
    }

    /// The default as an expression of the field's type.
    pub(crate) fn default_value(&self) -> TokenStream {
        match &self.default {
            FieldDefault::Null => quote!(::core::option::Option::None),
            FieldDefault::Value(value) => {
                let value = match value {
                    Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => quote!(::std::borrow::Cow::Borrowed(#text)),
                    value => quote!(#value),
                };
                if self.optional.is_some() { quote!(::core::option::Option::Some(#value)) } else { value }
            }
            FieldDefault::Empty if self.optional.is_some() => {
                quote!(::core::option::Option::Some(::core::default::Default::default()))
            }
            FieldDefault::Empty => quote!(::core::default::Default::default()),
        }
    }

    /// The default as the schema states it.
    pub(crate) fn default_schema(&self) -> TokenStream {
        let kind = quote!(::madang_protocol::schema::DefaultValue);
        match &self.default {
            FieldDefault::Null => quote!(#kind::Null),
            FieldDefault::Empty => quote!(#kind::Empty),
            FieldDefault::Value(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => quote!(#kind::Text(#text)),
            FieldDefault::Value(Expr::Lit(ExprLit { lit: Lit::Bool(value), .. })) => quote!(#kind::Bool(#value)),
            FieldDefault::Value(value) => quote!(#kind::Int(#value as i64)),
        }
    }
}

fn option_of(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner.clone()),
        _ => None,
    }
}

fn is_payload(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == "Payload"))
}
