//! A page as a browser understands it, and what must hold for every page.

use html5ever::tendril::TendrilSink;
use html5ever::{ParseOpts, parse_document};
use markup5ever_rcdom::{Handle, NodeData, RcDom};

/// Elements that pages are made of.
const HTML: &[&str] = &[
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "section",
    "footer",
    "h1",
    "h2",
    "h3",
    "p",
    "div",
    "span",
    "strong",
    "small",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "ul",
    "li",
    "dl",
    "dt",
    "dd",
    "figure",
    "figcaption",
    "details",
    "summary",
    "svg",
    "g",
    "line",
    "em",
    "code",
    "a",
];
/// Those of drawings.
const SVG: &[&str] = &["rect", "circle", "text", "polyline", "polygon", "path", "ellipse"];
/// Attributes of either.
const ATTRIBUTES: &[&str] = &[
    "lang",
    "charset",
    "name",
    "content",
    "http-equiv",
    "class",
    "role",
    "aria-label",
    "width",
    "height",
    "viewBox",
    "xmlns",
    "x",
    "y",
    "x1",
    "y1",
    "x2",
    "y2",
    "cx",
    "cy",
    "r",
    "points",
    "d",
    "fill",
    "stroke",
    "stroke-width",
    "opacity",
    "font-family",
    "font-size",
    "text-anchor",
    "dy",
    "transform",
    "fill-opacity",
    "stroke-opacity",
];

/// What is in a page.
#[derive(Default)]
pub struct Page {
    /// All text outside of the style sheet.
    pub text: String,
    /// Names of all elements, in order.
    pub elements: Vec<String>,
    /// Text of each element of these names: headings, rows of tables, texts of drawings.
    pub parts: Vec<(String, String)>,
}

impl Page {
    /// Reads a page; panics if a browser would have to guess, or if there is anything in it that no page should have: other elements or attributes than
    /// those that pages are made of, anything that loads or runs.
    pub fn read(page: &str) -> Self {
        let dom = parse_document(RcDom::default(), ParseOpts::default()).one(page);
        assert_eq!(*dom.errors.borrow(), Vec::<std::borrow::Cow<'static, str>>::new(), "well-formed HTML");
        let mut read = Self::default();
        read.walk(&dom.document);
        for svg in page.split("<svg").skip(1) {
            let svg = format!("<svg{}</svg>", svg.split("</svg>").next().unwrap());
            roxmltree::Document::parse(&svg).unwrap_or_else(|e| panic!("{e}: {svg}"));
        }
        read
    }

    fn walk(&mut self, node: &Handle) -> String {
        let mut own = String::new();
        let mut name = String::new();
        match &node.data {
            NodeData::Text { contents } => own.push_str(&contents.borrow()),
            NodeData::Element { name: element, attrs, .. } => {
                name = element.local.to_string();
                assert!(HTML.contains(&name.as_str()) || SVG.contains(&name.as_str()), "element {name}");
                for attribute in attrs.borrow().iter() {
                    let key = attribute.name.local.to_string();
                    assert!(ATTRIBUTES.contains(&key.as_str()), "attribute {key} of {name}");
                    let is_text = ["aria-label", "content"].contains(&key.as_str());
                    assert!(is_text || !attribute.value.contains("url("), "{key}: {}", attribute.value);
                }
                self.elements.push(name.clone());
            }
            NodeData::Comment { contents } => panic!("a comment: {contents}"),
            _ => {}
        }
        let children: Vec<String> = node.children.borrow().iter().map(|child| self.walk(child)).collect();
        own.push_str(&children.join(" "));
        if name == "style" {
            assert!(!own.contains("url(") && !own.contains("@import"), "{own}");
            return String::new();
        }
        if name == "body" {
            self.text = words(&own);
        }
        if !name.is_empty() {
            self.parts.push((name, words(&own)));
        }
        own
    }

    /// Texts of all elements of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.parts.iter().filter(|(own, _)| own == name).map(|(_, text)| text.as_str()).collect()
    }

    pub fn says(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "expected `{text}` in: {}", self.text);
        self
    }

    pub fn count(&self, name: &str) -> usize {
        self.elements.iter().filter(|own| *own == name).count()
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
