"""The words of the phrasebook, as tables that `inflection.py` and `clauses.py` read.

A table is text, one entry a line, its columns separated by `;` and alternatives by `,`, the usual
one first. German nouns carry their gender: m, f, n, or p for plural.
"""

# English; German with gender; adjectives that go with it.
# `~` marks a noun that takes no indefinite article, `!` one that never takes any article.
NOUNS = """
bread~; n Brot; fresh
milk~; f Milch; fresh
cheese~; m Käse
fish~; m Fisch; fresh
fruit~; n Obst; fresh
vegetables~; n Gemüse; fresh
apples~; p Äpfel; red
potatoes~; p Kartoffeln
eggs~; p Eier; fresh
cake; m Kuchen; big
soup; f Suppe; hot
salad; m Salat; big, fresh
pizza; f Pizza; big
coffee~; m Kaffee; hot
tea~; m Tee; hot
water~; n Wasser; cold
juice~; m Saft; cold
cup of coffee; f Tasse Kaffee
cup of tea; f Tasse Tee
glass of water; n Glas Wasser
glass of juice; n Glas Saft
glass of wine; n Glas Wein
piece of cake; n Stück Kuchen
coat; m Mantel; warm, new, black
dress; n Kleid; red, blue, new
shirt; n Hemd; blue, new
jacket; f Jacke; warm, black, new
shoes~; p Schuhe; new, black
bag; f Tasche; new, black
car; n Auto, m Wagen; new, old, small
bike; n Fahrrad, n Rad; new, old, red
house; n Haus; small, big, old
flat; f Wohnung; small, big, new
computer; m Computer, m Rechner; new, old
phone; n Handy, n Telefon; new
sofa; n Sofa, f Couch; new, comfortable
table; m Tisch; big
lamp; f Lampe; new, small
book; n Buch; interesting, exciting
books~; p Bücher; interesting, exciting
newspaper; f Zeitung
letter; m Brief; long, important
email; f E-Mail; long, important
parcel; n Paket; big, small
postcard; f Postkarte
film; m Film; exciting, old, interesting
films~; p Filme; exciting, old
umbrella; m Regenschirm, m Schirm
key; m Schlüssel
watch; f Uhr; new, expensive
flowers~; p Blumen; beautiful
photos~; p Fotos, p Bilder
window; n Fenster
windows; p Fenster
door; f Tür
kitchen; f Küche
bathroom; n Bad, n Badezimmer
room; n Zimmer; cheap
light; n Licht
radio; n Radio
television; m Fernseher
heating; f Heizung
washing machine; f Waschmaschine
dishes; n Geschirr
garden; m Garten; small, beautiful
bill; f Rechnung
tablets; p Tabletten
hotel; n Hotel; cheap, good
flight; m Flug; cheap
appointment; m Termin; important
time~; f Zeit
headache; p Kopfschmerzen
fever; n Fieber~
cold; f Erkältung
bus; m Bus
train; m Zug
station; m Bahnhof
post office; f Post
bakery; f Bäckerei; good
supermarket; m Supermarkt; cheap
restaurant; n Restaurant, n Lokal; good, cheap
cinema; n Kino
football!; m Fußball
tennis!; n Tennis
cards!; p Karten
chess!; n Schach
the piano!; n Klavier
the guitar!; f Gitarre
music!; f Musik
the radio!; n Radio
German!; n Deutsch
English!; n Englisch
mother; f Mutter
father; m Vater
sister; f Schwester
brother; m Bruder
parents; p Eltern
grandmother; f Großmutter, f Oma
grandfather; m Großvater, m Opa
aunt; f Tante
uncle; m Onkel
friends; p Freunde
neighbours; p Nachbarn
children; p Kinder
family; f Familie
boss; m Chef
"""

ADJECTIVES = """
new; neu
old; alt
big; groß
small; klein
red; rot
blue; blau
black; schwarz
warm; warm
fresh; frisch
hot; heiß
cold; kalt
long; lang
good; gut
cheap; billig, günstig
expensive; teuer
important; wichtig
interesting; interessant
exciting; spannend
comfortable; bequem
beautiful; schön
"""

# Verbs whose forms no rule gives: infinitive; he/she present; preterite; participle (+ with sein).
STRONG_VERBS = """
essen; isst; aß; gegessen
trinken; trinkt; trank; getrunken
lesen; liest; las; gelesen
schreiben; schreibt; schrieb; geschrieben
geben; gibt; gab; gegeben
waschen; wäscht; wusch; gewaschen
finden; findet; fand; gefunden
verlieren; verliert; verlor; verloren
vergessen; vergisst; vergaß; vergessen
schließen; schließt; schloss; geschlossen
rufen; ruft; rief; gerufen
treffen; trifft; traf; getroffen
laden; lädt; lud; geladen
helfen; hilft; half; geholfen
sehen; sieht; sah; gesehen
nehmen; nimmt; nahm; genommen
fahren; fährt; fuhr; gefahren+
gehen; geht; ging; gegangen+
fliegen; fliegt; flog; geflogen+
schwimmen; schwimmt; schwamm; geschwommen+
backen; backt; backte; gebacken
schlafen; schläft; schlief; geschlafen
stehen; steht; stand; gestanden+
bleiben; bleibt; blieb; geblieben+
kommen; kommt; kam; gekommen+
sprechen; spricht; sprach; gesprochen
scheinen; scheint; schien; geschienen
liegen; liegt; lag; gelegen
bringen; bringt; brachte; gebracht
haben; hat; hatte; gehabt
sein; ist; war; gewesen+
werden; wird; wurde; geworden+
wissen; weiß; wusste; gewusst
müssen; muss; musste; gemusst
können; kann; konnte; gekonnt
wollen; will; wollte; gewollt
sollten; sollte; sollte; gesollt
möchten; möchte; wollte; gewollt
würden; würde; würde; geworden+
"""

# English; German; person and number; English and German possessive; `k` children,
# `o` old people, `m` a married couple.
SUBJECTS = """
I; ich; 1s; my; mein;
you; du; 2s; your; dein;
he; er; 3s; his; sein;
she; sie; 3s; her; ihr;
we; wir; 1p; our; unser;
they; sie; 3p; their; ihr;
Anna; Anna; 3s; her; ihr;
Paul; Paul; 3s; his; sein;
my brother; mein Bruder; 3s; his; sein;
my sister; meine Schwester; 3s; her; ihr;
my mother; meine Mutter; 3s; her; ihr;
my father; mein Vater; 3s; his; sein;
my parents; meine Eltern; 3p; their; ihr; m
our neighbours; unsere Nachbarn; 3p; their; ihr; m
my grandmother; meine Großmutter, meine Oma; 3s; her; ihr; o
my grandfather; mein Großvater, mein Opa; 3s; his; sein; o
the children; die Kinder; 3p; their; ihr; k
"""
