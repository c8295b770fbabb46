//! The generated code: one statement per field and direction, in the order of declaration, tagged fields last by tag.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Fields, Ident, Lifetime, Result, Type};

use crate::attributes::{FieldAttributes, MessageAttributes, Range};

struct FieldPlan<'s> {
    ident: &'s Ident,
    ty: &'s Type,
    attributes: FieldAttributes,
}

impl FieldPlan<'_> {
    /// The field's name without `r#`.
    fn name(&self) -> String {
        self.ident.to_string().trim_start_matches("r#").to_owned()
    }

    /// The type on the wire: the inside of an `Option`.
    fn wire_type(&self) -> &Type {
        self.attributes.optional.as_ref().unwrap_or(self.ty)
    }

    /// The condition under which the field is written in its place, not as a tagged one.
    fn in_place(&self) -> TokenStream {
        let present = self.attributes.versions.condition();
        match &self.attributes.tag {
            None => present,
            Some((_, tagged)) if *tagged == self.attributes.versions => quote!(false),
            Some((_, tagged)) => {
                let tagged = tagged.condition();
                quote!((#present) && !(#tagged))
            }
        }
    }

    /// An expression that reads the field's value from `reader`.
    fn read(&self) -> TokenStream {
        let (ty, nullable) = (self.wire_type(), self.attributes.nullable);
        let plain = quote!(<#ty as ::madang_protocol::wire::Wire>::read(reader, at)?);
        if self.attributes.optional.is_none() {
            return plain;
        }
        let or_null = quote!(<#ty as ::madang_protocol::wire::Nullable>::read_nullable(reader, at)?);
        if nullable.is_none() {
            return quote!(::core::option::Option::Some(#plain));
        }
        if nullable == Range::ALL || nullable == self.attributes.versions {
            return or_null;
        }
        let condition = nullable.condition();
        quote!(if #condition { #or_null } else { ::core::option::Option::Some(#plain) })
    }

    /// Statements that write the field's value to `writer`.
    fn write(&self) -> TokenStream {
        let (ident, ty, nullable) = (self.ident, self.wire_type(), self.attributes.nullable);
        if self.attributes.optional.is_none() {
            return quote!(<#ty as ::madang_protocol::wire::Wire>::write(&self.#ident, writer, at)?;);
        }
        let (name, condition) = (self.name(), nullable.condition());
        quote! {
            match &self.#ident {
                ::core::option::Option::None if !(#condition) => {
                    return ::core::result::Result::Err(
                        ::madang_protocol::writer::EncodeError::Null { field: #name, version: at.version },
                    );
                }
                value => <#ty as ::madang_protocol::wire::Nullable>::write_nullable(value.as_ref(), writer, at, #condition)?,
            }
        }
    }

    fn is_default(&self) -> TokenStream {
        let (ident, default, ty) = (self.ident, self.attributes.default_value(), self.ty);
        quote!({ let default: #ty = #default; self.#ident == default })
    }

    /// Statements for a version: write in place, or refuse a value that this version cannot carry.
    fn write_in_place(&self) -> TokenStream {
        let (write, condition, versions) = (self.write(), self.in_place(), self.attributes.versions);
        let absent = if self.attributes.ignorable || versions == Range::ALL {
            quote!()
        } else {
            let (name, present, is_default) = (self.name(), versions.condition(), self.is_default());
            quote! {
                if !(#present) && !#is_default {
                    return ::core::result::Result::Err(
                        ::madang_protocol::writer::EncodeError::NotInVersion { field: #name, version: at.version },
                    );
                }
            }
        };
        quote!(if #condition { #write } #absent)
    }

    fn read_in_place(&self) -> TokenStream {
        let (ident, read, condition) = (self.ident, self.read(), self.in_place());
        quote!(if #condition { value.#ident = #read; })
    }

    fn min_len(&self) -> TokenStream {
        let (ty, condition) = (self.wire_type(), self.in_place());
        if self.attributes.optional.is_some() {
            quote!(if #condition { len += <#ty as ::madang_protocol::wire::Nullable>::MIN_NULLABLE_LEN; })
        } else {
            quote!(if #condition { len += <#ty as ::madang_protocol::wire::Wire>::min_len(at); })
        }
    }

    fn schema(&self) -> TokenStream {
        let (name, ty) = (self.name(), self.wire_type());
        let FieldAttributes { versions, nullable, ignorable, .. } = &self.attributes;
        let default = self.attributes.default_schema();
        let tag = match &self.attributes.tag {
            Some((tag, tagged)) => quote!(::core::option::Option::Some((#tag, #tagged))),
            None => quote!(::core::option::Option::None),
        };
        quote! {
            ::madang_protocol::schema::FieldSchema {
                name: #name,
                kind: <#ty as ::madang_protocol::wire::Wire>::KIND,
                versions: #versions,
                nullable: #nullable,
                tag: #tag,
                default: #default,
                ignorable: #ignorable,
            }
        }
    }
}

/// All impls of one struct.
pub(crate) fn message(input: &DeriveInput) -> Result<TokenStream> {
    let message = MessageAttributes::parse(&input.attrs)?;
    let fields = plan(input)?;
    let mut tagged: Vec<_> =
        fields.iter().filter_map(|field| field.attributes.tag.map(|(tag, versions)| (tag, versions, field))).collect();
    tagged.sort_by_key(|(tag, ..)| *tag);
    if let Some(pair) = tagged.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(syn::Error::new_spanned(pair[1].2.ident, "another field has this tag"));
    }
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let lifetime = match input.generics.lifetimes().next() {
        Some(parameter) => parameter.lifetime.clone(),
        None => Lifetime::new("'wire", proc_macro2::Span::call_site()),
    };
    let name = &input.ident;
    let implementing =
        |what: TokenStream| quote!(#[automatically_derived] impl<#lifetime> #what for #name #ty_generics);
    let (default, into_static) = (default_impl(input, &fields), into_static_impl(input, &fields));
    let wire = implementing(quote!(::madang_protocol::wire::Wire<#lifetime>));
    let nullable = implementing(quote!(::madang_protocol::wire::Nullable<#lifetime>));
    let (schema, min_len) = (schema_const(input, &fields), fields.iter().map(FieldPlan::min_len));
    let (read, write) = (read_fn(&fields, &tagged, &lifetime), write_fn(&fields, &tagged));
    let top = message.map(|MessageAttributes { versions, flexible }| {
        let message = implementing(quote!(::madang_protocol::message::Message<#lifetime>));
        quote! {
            #message {
                const VERSIONS: ::madang_protocol::schema::Versions = #versions;
                const FLEXIBLE: ::madang_protocol::schema::Versions = #flexible;
            }
        }
    });
    Ok(quote! {
        #default
        #into_static
        #wire {
            #schema
            fn min_len(at: ::madang_protocol::wire::At) -> usize {
                let mut len = usize::from(at.flexible);
                #(#min_len)*
                len
            }
            #read
            #write
        }
        #nullable {
            const MIN_NULLABLE_LEN: usize = 0;
            fn read_nullable(
                reader: &mut ::madang_protocol::reader::Reader<#lifetime>,
                at: ::madang_protocol::wire::At,
            ) -> ::core::result::Result<::core::option::Option<Self>, ::madang_protocol::reader::DecodeError> {
                ::madang_protocol::wire::read_nullable_struct(reader, at)
            }
            fn write_nullable(
                value: ::core::option::Option<&Self>,
                writer: &mut ::madang_protocol::writer::Writer,
                at: ::madang_protocol::wire::At,
                nullable: bool,
            ) -> ::core::result::Result<(), ::madang_protocol::writer::EncodeError> {
                ::madang_protocol::wire::write_nullable_struct(value, writer, at, nullable)
            }
        }
        #top
    })
}

fn plan(input: &DeriveInput) -> Result<Vec<FieldPlan<'_>>> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new_spanned(&input.ident, "a message is a struct"));
    };
    let fields = match &data.fields {
        Fields::Named(fields) => fields.named.iter().collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(fields) => return Err(syn::Error::new_spanned(fields, "the fields of a message have names")),
    };
    fields
        .into_iter()
        .map(|field| {
            let ident = field.ident.as_ref().ok_or_else(|| syn::Error::new_spanned(field, "a field needs a name"))?;
            Ok(FieldPlan { ident, ty: &field.ty, attributes: FieldAttributes::parse(field)? })
        })
        .collect()
}

fn default_impl(input: &DeriveInput, fields: &[FieldPlan<'_>]) -> TokenStream {
    let (impl_generics, ty_generics, _) = input.generics.split_for_impl();
    let name = &input.ident;
    let values = fields.iter().map(|field| {
        let (ident, value) = (field.ident, field.attributes.default_value());
        quote!(#ident: #value)
    });
    quote! {
        #[automatically_derived]
        impl #impl_generics ::core::default::Default for #name #ty_generics {
            fn default() -> Self {
                Self { #(#values),* }
            }
        }
    }
}

fn into_static_impl(input: &DeriveInput, fields: &[FieldPlan<'_>]) -> TokenStream {
    let (impl_generics, ty_generics, _) = input.generics.split_for_impl();
    let name = &input.ident;
    let (static_type, body) = if input.generics.lifetimes().next().is_some() {
        let idents: Vec<_> = fields.iter().map(|field| field.ident).collect();
        let body = quote!(#name { #(#idents: ::madang_protocol::message::IntoStatic::into_static(self.#idents)),* });
        (quote!(#name<'static>), body)
    } else {
        (quote!(Self), quote!(self))
    };
    quote! {
        #[automatically_derived]
        impl #impl_generics ::madang_protocol::message::IntoStatic for #name #ty_generics {
            type Static = #static_type;
            fn into_static(self) -> Self::Static {
                #body
            }
        }
    }
}

fn schema_const(input: &DeriveInput, fields: &[FieldPlan<'_>]) -> TokenStream {
    let name = input.ident.to_string();
    let fields = fields.iter().map(FieldPlan::schema);
    quote! {
        const KIND: ::madang_protocol::schema::Kind =
            ::madang_protocol::schema::Kind::Struct(&::madang_protocol::schema::StructSchema {
                name: #name,
                fields: &[#(#fields),*],
            });
    }
}

type Tagged<'p, 's> = (u32, Range, &'p FieldPlan<'s>);

fn read_fn(fields: &[FieldPlan<'_>], tagged: &[Tagged<'_, '_>], lifetime: &Lifetime) -> TokenStream {
    let in_place = fields.iter().filter(|field| field.in_place().to_string() != "false").map(FieldPlan::read_in_place);
    let arms = tagged.iter().map(|(tag, versions, field)| {
        let (ident, read, condition) = (field.ident, field.read(), versions.condition());
        quote! {
            #tag if #condition => {
                value.#ident = #read;
                ::core::result::Result::Ok(true)
            }
            #tag => ::core::result::Result::Err(::madang_protocol::reader::DecodeError::InvalidTag { tag: #tag, version: at.version }),
        }
    });
    let mutable = if fields.is_empty() { quote!() } else { quote!(mut) };
    let tagged_fields = if tagged.is_empty() {
        quote!(reader.skip_tagged_fields()?;)
    } else {
        quote! {
            reader.read_tagged_fields(|reader, tag| match tag {
                #(#arms)*
                _ => ::core::result::Result::Ok(false),
            })?;
        }
    };
    quote! {
        fn read(
            reader: &mut ::madang_protocol::reader::Reader<#lifetime>,
            at: ::madang_protocol::wire::At,
        ) -> ::core::result::Result<Self, ::madang_protocol::reader::DecodeError> {
            let #mutable value = Self::default();
            #(#in_place)*
            if at.flexible {
                #tagged_fields
            }
            ::core::result::Result::Ok(value)
        }
    }
}

fn write_fn(fields: &[FieldPlan<'_>], tagged: &[Tagged<'_, '_>]) -> TokenStream {
    let in_place = fields.iter().map(FieldPlan::write_in_place);
    let (mut present, mut counts, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for (tag, versions, field) in tagged {
        let flag = format_ident!("has_{}", field.name());
        let (condition, is_default, write) = (versions.condition(), field.is_default(), field.write());
        present.push(quote!(let #flag = (#condition) && !#is_default;));
        counts.push(quote!(u32::from(#flag)));
        writes.push(quote! {
            if #flag {
                writer.put_tagged_field(#tag, |writer| { #write Ok(()) })?;
            }
        });
    }
    quote! {
        fn write(
            &self,
            writer: &mut ::madang_protocol::writer::Writer,
            at: ::madang_protocol::wire::At,
        ) -> ::core::result::Result<(), ::madang_protocol::writer::EncodeError> {
            #(#in_place)*
            if at.flexible {
                #(#present)*
                writer.put_unsigned_varint(0 #(+ #counts)*);
                #(#writes)*
            }
            ::core::result::Result::Ok(())
        }
    }
}
