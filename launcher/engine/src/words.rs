//! Words for names nobody gave: an adjective and something from a pastry shop.

/// First half of a drawn name.
pub(crate) const ADJECTIVES: [&str; 64] = [
    "airy", "almond", "amber", "baked", "bold", "bright", "brisk", "buttery", "calm", "candied", "caramel", "cheery",
    "chilled", "cosy", "creamy", "crisp", "crumbly", "curious", "dainty", "dusted", "eager", "early", "fancy", "fluffy",
    "folded", "fresh", "frosted", "gentle", "gilded", "glazed", "golden", "happy", "hazel", "honest", "humble", "iced",
    "jolly", "keen", "layered", "lemony", "light", "lively", "lucky", "mellow", "merry", "minty", "neat", "nimble",
    "nutty", "plump", "proud", "quick", "quiet", "rich", "rosy", "rustic", "silky", "simple", "spiced", "steady",
    "sugared", "sunny", "tender", "warm",
];

/// Second half of a drawn name.
pub(crate) const CAKES: [&str; 64] = [
    "babka", "baklava", "beignet", "biscotti", "blini", "blondie", "boterkoek", "brioche", "brownie", "bundt",
    "cannele", "cannoli", "charlotte", "cheesecake", "churro", "clafoutis", "cobbler", "compote", "cornetto", "crepe",
    "crostata", "croissant", "crumble", "custard", "dacquoise", "danish", "donut", "eclair", "financier", "flan",
    "focaccia", "frangipane", "galette", "ganache", "genoise", "gugelhupf", "kouign", "lamington", "linzer", "macaron",
    "madeleine", "marzipan", "meringue", "mochi", "nougat", "opera", "palmier", "panettone", "parfait", "pavlova",
    "praline", "profiterole", "sable", "savarin", "scone", "semla", "souffle", "stollen", "strudel", "tarte",
    "tiramisu", "torte", "trifle", "waffle",
];
