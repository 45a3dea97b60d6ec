"""A corpus of speech by espeak-ng's voices: made-up sentences, and the lip shape of every sound."""

import numpy as np
from espeak import Synthesiser

from talk3d.heads.subject import Phone
from talk3d.pretrain.speakers import Recording
from talk3d.video.clock import AUDIO_RATE

# Sounds of the International Phonetic Alphabet to visemes; what is not listed (length, nasality, stress) does not move lips.
VISEMES = {
    "PP": "p b m", "FF": "f v ʋ ɱ β ɸ", "TH": "θ ð", "DD": "t d ɾ ʈ ɖ r", "kk": "k ɡ x ɣ q χ h ɦ ŋ c ɟ ʀ ʁ ɰ ħ",
    "CH": "tʃ dʒ ʃ ʒ ʂ ʐ ɕ ʑ tɕ dʑ", "SS": "s z ts dz", "nn": "n l ɲ ɫ ʎ ɳ ɭ", "RR": "ɹ ɻ ɚ ɝ ɜ", "aa": "a ɑ ɐ ʌ æ",
    "E": "ɛ e ə ɘ ɤ", "I": "i ɪ ɨ j ɯ ç", "O": "o ɔ ɒ œ ø", "U": "u ʊ ʉ y ʏ w ɥ ʍ",
}  # fmt: skip
VISEME_OF = {sound: viseme for viseme, sounds in VISEMES.items() for sound in sounds.split()}
LONGEST = 0.25
"""Seconds that a sound's shape is held: the rest of a longer one is a pause."""

WORDS = {
    "en": """the a my your this every big small warm blue open quiet brown happy water apple morning table window people music
    paper river mother father bread cheese house boat evening summer winter flower village over under before maybe because
    move make give bring keep buy follow film push believe remember walked laughed above five two four seven thousand""",
    "fr": """le la un une mon ton notre petit grand beau bon vieux rouge bleu chaud matin soir pain beurre fromage maison
    jardin bateau fenêtre musique papier rivière père mère enfant village fleur peuple pour avec sous devant peut-être parce
    que boire faire donner pousser vouloir parler marche tombe lune pomme huit deux vingt beaucoup""",
    "de": """der die das ein mein unser klein groß warm blau offen ruhig braun froh Wasser Apfel Morgen Tisch Fenster Leute
    Musik Papier Fluss Mutter Vater Brot Käse Haus Boot Abend Sommer Blume Dorf über unter vor vielleicht weil machen geben
    bringen kaufen folgen schieben glauben schön fünf zwei vier sieben tausend möchte früh""",
    "es": """el la un una mi tu nuestro pequeño grande bueno viejo rojo azul abierto mañana tarde pan queso casa jardín barco
    ventana música papel río padre madre niño pueblo flor gente para con bajo sobre quizás porque hacer dar beber empujar
    hablar camino luna manzana ocho dos mucho agua viejo""",
    "it": """il la un una mio tuo nostro piccolo grande buono vecchio rosso blu aperto mattina sera pane formaggio casa giardino
    barca finestra musica carta fiume padre madre bambino paese fiore gente per con sotto sopra forse perché fare dare bere
    spingere parlare cammino luna mela otto due molto acqua gnocchi""",
}  # fmt: skip
# Written down as most languages of the list below would read them.
ONSETS, NUCLEI, CODAS = (
    ["p", "b", "m", "f", "v", "t", "d", "k", "g", "s", "z", "n", "l", "r", "sh", "ch", "w", "j"],
    ["a", "e", "i", "o", "u", "ai", "ou"],
    ["", "", "n", "s", "m", "l", "t"],
)
LANGUAGES = ["en-us"] * 4 + ["en-gb-x-rp"] * 3 + ["fr"] * 3 + ["de"] * 2 + ["es"] * 2 + ["it"] * 2
LANGUAGES += ["en-gb-scotland", "en-us-nyc", "fr-be", "pt-br", "pl", "nl", "sv", "fi", "ro", "cs", "hu", "id", "sw", "tr", "hr"]
VARIANTS = [
    "m1", "m2", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "Alex", "Alicia", "Andrea", "Andy", "Annie",
    "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "adam",
    "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa",
    "gustave", "iven", "iven2", "john", "kaukovalta", "klatt", "klatt2", "klatt3", "klatt4", "linda", "max", "michel",
    "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "sandro", "shelby", "steph", "travis", "victor",
    "whisper", "zac",
]  # fmt: skip
UNSEEN_VARIANTS = ["m3", "f3", "robert", "steph2", "marcelo", "iven3"]
"""Voices that are never trained on."""


def phones_of(events: list[tuple[float, str]], end: float) -> list[Phone]:
    """Lip shapes of timed sounds; the parts of a diphthong or affricate share its time."""
    phones = []
    for (start, name), (stop, _) in zip(events, [*events[1:], (end, "")], strict=True):
        shapes, rest = [], name
        while rest:
            length = 2 if rest[:2] in VISEME_OF else 1
            if rest[:length] in VISEME_OF:
                shapes.append(VISEME_OF[rest[:length]])
            rest = rest[length:]
        stop = min(stop, start + LONGEST)
        for index, viseme in enumerate(shapes):
            step = (stop - start) / len(shapes)
            phones.append(Phone(start + index * step, start + (index + 1) * step, viseme))
    return phones


def sentences(language: str, rng: np.random.Generator) -> str:
    """Some seconds of words that mean nothing."""
    words = WORDS.get(language[:2], "").split()
    text = []
    for _ in range(rng.integers(2, 5)):
        line = []
        for _ in range(rng.integers(3, 11)):
            if words and rng.random() < 0.7:
                line.append(str(rng.choice(words)))
            else:
                line.append("".join(_syllable(rng) for _ in range(rng.integers(1, 4))))
        text.append(" ".join(line) + str(rng.choice([".", ",", "?", "!"])))
    return " ".join(text)


def _syllable(rng: np.random.Generator) -> str:
    return str(rng.choice(ONSETS)) + str(rng.choice(NUCLEI)) + str(rng.choice(CODAS))


def make_recordings(speak: Synthesiser, count: int, seed: int, unseen: bool = False) -> list[Recording]:
    """Recordings of up to 16 s, each by a random voice; `unseen` ones by voices that training never hears."""
    recordings = []
    for index in range(count):
        rng = np.random.default_rng([seed, index, int(unseen)])
        language, variant = str(rng.choice(LANGUAGES)), str(rng.choice(UNSEEN_VARIANTS if unseen else VARIANTS))
        speed, pitch, span = int(rng.integers(115, 215)), int(rng.integers(20, 80)), int(rng.integers(20, 80))
        sound, events = speak(sentences(language, rng), f"{language}+{variant}", speed, pitch, span)
        lead = float(rng.uniform(0.2, 0.8))
        phones = phones_of(events, len(sound) / AUDIO_RATE)
        quiet = np.zeros(int(lead * AUDIO_RATE), np.float32)
        phones = [Phone(p.start + lead, p.stop + lead, p.viseme) for p in phones]
        recordings.append(Recording(np.concatenate([quiet, sound, quiet])[: 16 * AUDIO_RATE], phones))
    return recordings
