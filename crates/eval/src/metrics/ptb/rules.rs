//! What the tokenizer recognises, as a table: pattern, what of the match is the token, what becomes of it.
//!
//! The longest match counts, the text a rule looks ahead to included; of equally long ones the first rule in the table.
//! Patterns are regular expressions with two additions: `{name}` stands for an entry of [`NAMES`], and letters outside
//! of classes match in either case, those inside as they stand.
//! The behaviour is that of Stanford's PTBTokenizer 3.4.1 with its default options, found from its documentation, its
//! grammar and its output; cases in `tests/golden/captions` compare the two.

/// Where the token ends, of a match that includes what a rule looks ahead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// At its end.
    Whole,
    /// So many characters before its end.
    Chars(usize),
    /// Before its first blank; and one letter with a full stop loses the stop, which is then a token of its own.
    Acronym,
    /// Before the blank or digit that ends it.
    Number,
    /// Before the last apostrophe, whichever way it is written.
    Apostrophe,
    /// Before the `n` of the contracted `not` at its end.
    Not,
}

/// What becomes of the token's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// It stays.
    Same,
    /// It is left out.
    Nothing,
    /// This instead.
    As(&'static str),
    /// Without soft hyphens; a hyphen where nothing else is left.
    Soft,
    /// Quotation marks in the manner of LaTeX, straight ones as opening.
    Opening,
    /// Likewise, straight ones as closing.
    Closing,
    /// Blanks become no-break spaces.
    Joined,
    /// Likewise, and round brackets their names.
    Telephone,
    /// Round brackets become their names.
    Brackets,
    /// The entity of an ampersand becomes one.
    Ampersand,
    /// Vulgar fractions are spelled out.
    Fraction,
    /// Currencies other than yen become the signs of the Penn Treebank.
    Currency,
    /// Three and four hyphens become two.
    Hyphens,
}

use Cut::{Acronym, Apostrophe, Chars, Not, Number, Whole};
use Shape::{
    Ampersand, As, Brackets, Closing, Currency, Fraction, Hyphens, Joined, Nothing, Opening, Same, Soft, Telephone,
};

/// One row of the table.
pub(super) type Rule = (&'static str, Cut, Shape);

/// Names that patterns use; each may use those before it.
pub(super) const NAMES: &[(&str, &str)] = &[
    // Letters and digits are those of Unicode 6.2 in the basic plane.
    ("alpha", r"[[[\p{L}&&\p{Age=6.1}&&[\x{0}-\x{FFFF}]]--[\x{19B0}-\x{19C0}\x{19C8}\x{19C9}]]\x{1885}\x{1886}]"),
    ("digit", r"[[\p{Nd}&&\p{Age=6.1}&&[\x{0}-\x{FFFF}]]\x{7C0}-\x{7C9}]"),
    ("decimal", r"[\p{Nd}&&\p{Age=6.1}&&[\x{0}-\x{FFFF}]]"),
    ("alnum", r"({alpha}|{decimal})"),
    // Marks, modifiers and what else stands inside of words.
    (
        "mark",
        r"[\xAD\x{237}-\x{24F}\x{2C2}-\x{2C5}\x{2D2}-\x{2DF}\x{2E5}-\x{37D}\x{384}\x{385}\x{3CF}\x{3F6}\x{3FC}-\x{3FF}\x{483}-\x{487}\x{4CF}\x{4F6}-\x{4FF}\x{510}-\x{525}\x{55A}-\x{55F}\x{591}-\x{5BD}\x{5BF}\x{5C1}\x{5C2}\x{5C4}\x{5C5}\x{5C7}\x{615}-\x{61A}\x{63B}-\x{63F}\x{64B}-\x{65E}\x{670}\x{6D6}-\x{6EF}\x{6FA}-\x{6FF}\x{70F}\x{711}\x{730}-\x{77F}\x{7A6}-\x{7B1}\x{7CA}-\x{7F5}\x{7FA}\x{900}-\x{903}\x{93C}\x{93E}-\x{94E}\x{951}-\x{955}\x{962}\x{963}\x{981}-\x{983}\x{9BC}-\x{9C4}\x{9C7}\x{9C8}\x{9CB}-\x{9CD}\x{9D7}\x{9E2}\x{9E3}\x{A01}-\x{A03}\x{A3C}\x{A3E}-\x{A4F}\x{A81}-\x{A83}\x{ABC}-\x{ACF}\x{B82}\x{BBE}-\x{BC2}\x{BC6}-\x{BC8}\x{BCA}-\x{BCD}\x{C01}-\x{C03}\x{C3E}-\x{C56}\x{D3E}-\x{D44}\x{D46}-\x{D48}\x{E30}-\x{E3A}\x{E47}-\x{E4E}\x{EB1}-\x{EBC}\x{EC8}-\x{ECD}]",
    ),
    ("letter", r"({alpha}|{mark}|&[aeiouAEIOU](acute|grave|uml);)"),
    ("word", r"{letter}({letter}|{digit})*([.!?]{letter}({letter}|{digit})*)*"),
    ("space", r"[ \t\xA0\x{2000}-\x{200A}\x{3000}]"),
    ("blank", r"[ \t\xA0\x{2000}-\x{200A}\x{3000}\n\r\x0B\x0C\x{85}\x{2028}\x{2029}]"),
    ("apos", r"(['\x{92}\x{2019}]|&apos;)"),
    ("apostrophe", r"(['`\x{91}\x{92}\x{2018}\x{2019}\x{201B}]|&apos;)"),
    ("auxiliary", r"{apos}([msdMSD]|re|ve|ll)"),
    ("not", r"n{apostrophe}t"),
    ("beforenot", r"[A-Za-z\xAD]*[A-MO-Za-mo-z][\xAD]*"),
    ("hyphen", r"[-_\x{58A}\x{2010}\x{2011}]"),
    ("inside", r"[,;:\x{3001}]"),
    ("quotation", r#"("|&quot;)"#),
    ("tagname", r"[A-Za-z][A-Za-z0-9_:.\-]*"),
    (
        "tag",
        r#"<([!?][A-Za-z\-][^>\r\n]*|{tagname}( +({tagname}|{tagname} *= *('[^'\n]*'|"[^"\n]*")))* */?|/{tagname}) *>"#,
    ),
    ("special", r"((canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(u\.k|u\.s\.s\.r))"),
    ("acro", r"([A-Za-z](\.[A-Za-z])*|{special})"),
    ("longacro", r"([A-Za-z](\.[A-Za-z])+|{special})"),
    ("month", r"(jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)"),
    ("day", r"(mon|tues?|wed|thu(rs)?|fri)"),
    // Names of states that are words, too, count with a capital alone.
    (
        "state",
        r"(ala|ariz|[A]z|[A]rk|calif|colo|conn|ct|dak|[D]el|fla|ga|[I]ll|ind|kans?|ky|[L]a|[M]ass|md|mich|minn|[M]iss|mo|mont|neb|nev|okla|[O]re|[P]a|penn|tenn|[T]ex|va|vt|[W]ash|wisc?|wyo)",
    ),
    ("company", r"(inc|cos?|corp|pp?t[ye]s?|ltd|plc|rt|bancorp|bhd|assn|univ|intl|sys)"),
    ("aftername", r"(jr|sr|bros|(ed|ph)\.d|blvd|rd|esq)"),
    ("closing", r"({month}|{day}|{state}|{company}|tel|est|ext|sq|{aftername}|etc|al|seq|bldg)\."),
    (
        "title",
        r"(mr|mrs|ms|[M]iss|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|capt|ste?|ave|pres|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|mt|ft|adj|adv|asst|assoc|ens|insp|mlle|mme|msgr|sfc)",
    ),
    ("opening", r"({title}|vs|alex|wm|jos|cie|a\.k\.a|cf|treas|ph|{acro}|invt|elec|natl|m[ft]g|dept)"),
    ("numbered", r"(ca|figs?|prop|nos?|art|bldg|pp|op)\."),
    // Words that begin a sentence, so that the stop of an acronym before them ends one.
    (
        "beginning",
        r"([A]bout|[A]ccording|[A]dditionally|[A]fter|[A]n|[A]|[A]s|[A]t|[B]ut|[E]arlier|[H]e|[H]er|[H]ere|[H]owever|[I]f|[I]n|[I]t|[L]ast|[M]any|[M]ore|[M]r\.|[M]s\.|[N]ow|[O]nce|[O]ne|[O]ther|[O]ur|[S]he|[S]ince|[S]o|[S]ome|[S]uch|[T]hat|[T]he|[T]heir|[T]hen|[T]here|[T]hese|[T]hey|[T]his|[W]e|[W]hen|[W]hile|[W]hat|[Y]et|[Y]ou|{tag})",
    ),
    (
        "extension",
        r"(bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip)",
    ),
    ("file", r"({letter}|{digit})+(\.({letter}|{digit})+)*\.{extension}"),
    ("joint", r"([dDoOlL]{apostrophe}{alnum})?{alnum}+"),
    ("thing", r"{joint}({hyphen}{joint})*"),
    ("hyphened", r"[A-Za-z0-9][A-Za-z0-9.,\xAD]*(-([A-Za-z0-9\xAD]+|{longacro}\.))+"),
    ("ampersanded", r"[A-Z]+(([+&]|&amp;)[A-Z]+)+"),
    ("slashed", r"[A-Za-z0-9]+(-[A-Za-z]+){0,2}(\\?/[A-Za-z0-9]+(-[A-Za-z]+){0,2}){1,2}"),
    ("path", r#"/[^ \t\n\x0C\r"<>|()]+[^ \t\n\x0C\r"<>|.!?(){},\-]"#),
];

/// The table.
pub(super) const RULES: &[Rule] = &[
    (r"c[+][+]", Whole, Same),
    (r"(c|f)#", Whole, Same),
    // Contractions that are taken apart; the rest is read as a token of its own.
    (r"cannot", Chars(3), Same),
    (r"'twas", Chars(3), Same),
    (r"'tis", Chars(2), Same),
    (r"(gonna|gotta|lemme|gimme|wanna)", Chars(2), Same),
    (r"{tag}", Whole, Joined),
    (r"(&(md|mdash|ndash);|[\x{96}\x{97}\x{2013}-\x{2015}])", Whole, As("--")),
    (r"&amp;", Whole, Ampersand),
    (r"&(ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);", Whole, Same),
    (r"{word}{auxiliary}", Apostrophe, Soft),
    (r"{beforenot}{not}", Not, Soft),
    (r"{word}", Whole, Soft),
    (
        r"({apos}n{apos}?|[lLdDjJ]{apos}|dunkin{apos}|somethin{apos}|ol{apos}|{apos}em|[A-HJ-XZn]{apostrophe}{alpha}{2}{alpha}*|{apos}[2-9]0s|{apos}till?|{alpha}{alpha}*[aeiouyAEIOUY]{apostrophe}[aeiouA-Z]{alpha}*|{apos}cause|cont'd\.?|'twas|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|o{apostrophe}o)",
        Whole,
        Same,
    ),
    (r"y{apos}{alpha}", Chars(1), Same),
    (r#"https?://[^ \t\n\x0C\r"<>|(){}]+[^ \t\n\x0C\r"<>|.!?(){},\-]"#, Whole, Same),
    // The class of the second form runs from the comma to the underscore, digits and capitals included.
    (
        r#"((www\.([^ \t\n\x0C\r"<>|.!?(){},]+\.)+[a-zA-Z]{2,4})|(([^ \t\n\x0C\r"`'<>|.!?(){}\x2C-\x5F$]+\.)+(com|net|org|edu)))({path})?"#,
        Whole,
        Same,
    ),
    (
        r#"(&lt;|<)?[a-zA-Z0-9][^ \t\n\x0C\r"<>|()\xA0{}]*@([^ \t\n\x0C\r"<>|(){}.\xA0]+\.)*([^ \t\n\x0C\r"<>|(){}.\xA0]+)(&gt;|>)?"#,
        Whole,
        Same,
    ),
    (r"(@[a-zA-Z_][a-zA-Z_0-9]*|#{letter}+)", Whole, Same),
    (r"{auxiliary}[^A-Za-z]", Chars(1), Closing),
    (r"{not}[^A-Za-z]", Chars(1), Closing),
    (r"{digit}{1,2}[-/]{digit}{1,2}[-/]{digit}{2,4}", Whole, Same),
    (r"[-+]?({digit}+|{digit}*([.:,\xAD\x{66B}\x{66C}]{digit}+)+)", Whole, Soft),
    (
        r"[\x{207A}\x{207B}\x{208A}\x{208B}]?([\x{2070}\xB9\xB2\xB3\x{2074}-\x{2079}]+|[\x{2080}-\x{2089}]+)",
        Whole,
        Same,
    ),
    (r"({digit}{1,4}[- \xA0])?{digit}{1,4}(\\?/|[\x{2044}]){digit}{1,4}", Whole, Joined),
    (r"[\xBC\xBD\xBE\x{2153}-\x{215E}]", Whole, Fraction),
    (
        r"(-(rrb|lrb|rcb|lcb|rsb|lsb)-|c\.d\.s|pro-|anti-|s(&|&amp;)p-500|s(&|&amp;)ls|cap{apos}n|c{apos}est)",
        Whole,
        Ampersand,
    ),
    (r"{slashed}", Whole, Same),
    (r"([A-Z]*\$|#)", Whole, Same),
    (r"[\xA2-\xA5\x{80}\x{20A0}\x{20AC}\x{60B}\x{E3F}\x{20A4}\x{FFE0}\x{FFE1}\x{FFE5}\x{FFE6}]", Whole, Currency),
    (r"{acro}\.{blank}+{beginning}{blank}", Acronym, Same),
    (r"{numbered}{blank}?{decimal}", Number, Same),
    (r"(pt[eyEY]|co)\.{space}(ltd|lim)", Chars(4), Same),
    (r"{closing}[\x{0}-\x{10FFFF}]{2}", Chars(2), Same),
    (r"{closing}", Whole, Same),
    (r"{opening}\.", Whole, Same),
    (r"{opening}{space}", Chars(1), Same),
    (r"{acro}{blank}", Chars(1), Same),
    (r"{apos}[0-9][0-9]{blank}", Chars(1), Same),
    (r"{file}({blank}|[.?!,])", Chars(1), Same),
    (r"{word}\.{inside}", Chars(1), Soft),
    (
        r"((\([0-9]{2,3}\)[ \xA0]?|(\+\+?)?([0-9]{2,4}[- \xA0])?[0-9]{2,4}[- \xA0])[0-9]{3,4}[- \xA0]?[0-9]{3,5}|((\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5})",
        Whole,
        Telephone,
    ),
    (r"{quotation}[A-Za-z0-9$]", Chars(1), Opening),
    (r"{quotation}", Whole, Closing),
    (r"(<|&lt;)", Whole, As("<")),
    (r"(>|&gt;)", Whole, As(">")),
    (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]][^A-Za-z0-9]", Chars(1), Brackets),
    (
        r"([\^x=~<>]\.\[\^x=~<>]|[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\))",
        Whole,
        Brackets,
    ),
    (r"\{", Whole, As("-LCB-")),
    (r"\}", Whole, As("-RCB-")),
    (r"\[", Whole, As("-LSB-")),
    (r"\]", Whole, As("-RSB-")),
    (r"\(", Whole, As("-LRB-")),
    (r"\)", Whole, As("-RRB-")),
    (r"-+", Whole, Hyphens),
    (r"(\.{3,5}|(\.[ \xA0]){2,4}\.|[\x{85}\x{2026}])", Whole, As("...")),
    (r"(@+|#+|_+)", Whole, Same),
    (r"(\*+|(\\\*){1,3})", Whole, Same),
    (r"{inside}", Whole, Same),
    (r"[?!]+", Whole, Same),
    (r"[.\xA1\xBF\x{37E}\x{589}\x{61F}\x{6D4}\x{700}-\x{702}\x{7FA}\x{3002}]", Whole, Same),
    (r"=", Whole, Same),
    (r"/", Whole, Same),
    (r"{hyphened}\.{inside}", Chars(1), Soft),
    (r"{hyphened}", Whole, Soft),
    (r"{thing}\.{inside}", Chars(1), Same),
    (r"{thing}", Whole, Same),
    (r"{ampersanded}\.{inside}", Chars(1), Ampersand),
    (r"{ampersanded}", Whole, Ampersand),
    (r"'[A-Za-z][^ \t\n\r\xA0]", Chars(2), Opening),
    (r"{auxiliary}", Whole, Closing),
    (r"{not}", Whole, Closing),
    (r"({apos}|''|[`\x{91}-\x{94}\x{2018}-\x{201F}\x{2039}\x{203A}\xAB\xBB]{1,2})", Whole, Closing),
    (r"(<<|>>)", Whole, Same),
    (
        r"[+%&~\^|\\\xA6-\xA9\xAC\xAE-\xBA\xD7\xF7\x{387}\x{5BE}\x{5C0}\x{5C3}\x{5C6}\x{5F3}\x{5F4}\x{600}-\x{603}\x{606}-\x{60A}\x{60C}\x{614}\x{61B}\x{61E}\x{66A}\x{66D}\x{703}-\x{70D}\x{7F6}-\x{7F8}\x{964}\x{965}\x{E4F}\x{1FBD}\x{2016}\x{2017}\x{2020}-\x{2023}\x{2030}-\x{2038}\x{203B}\x{203E}-\x{2042}\x{2044}\x{207A}-\x{207F}\x{208A}-\x{208E}\x{2100}-\x{214F}\x{2190}-\x{2BFF}\x{3012}\x{30FB}\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}]",
        Whole,
        Same,
    ),
    (r"([\x00]|{space}+|[\x{200B}\x{200E}\x{200F}\x{FEFF}]|&nbsp;)", Whole, Nothing),
];
