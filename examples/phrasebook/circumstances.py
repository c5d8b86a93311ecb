"""The times and places of the phrasebook, as tables that `drawing.py` reads."""

# English; German (a `*` alternative cannot open a sentence); tenses; `m`: English puts it before
# the verb. Tenses: p past, f future, h habit, n now; `q` suits what is done in a moment, and no big step.
TIMES = """
yesterday; gestern; pq
yesterday evening; gestern Abend; pq
last week; letzte Woche, in der letzten Woche; p
last weekend; letztes Wochenende, am letzten Wochenende; p
this morning; heute Morgen, heute früh; pq
on Monday; am Montag; pf
on Friday; am Freitag; pf
on Saturday; am Samstag; pf
this afternoon; heute Nachmittag; pfq
this evening; heute Abend; fq
today; heute; n
tomorrow; morgen; fq
tomorrow morning; morgen früh, morgen Vormittag; fq
next week; nächste Woche, in der nächsten Woche; f
at the weekend; am Wochenende; f
soon; bald; f
later; später, nachher; fq
every day; jeden Tag, täglich; h
every evening; jeden Abend; h
in the evening; abends, am Abend; h
on Sundays; sonntags, jeden Sonntag; h
often; oft, häufig; hm
sometimes; manchmal, ab und zu; hm
usually; meistens, normalerweise; hm
always; immer*; hm
at the moment; gerade*, im Moment, im Augenblick; n
"""

CLOCK_TIMES = """
at six; um sechs Uhr, um sechs; pfhK
at seven; um sieben Uhr, um sieben; pfhK
at eight; um acht Uhr, um acht; pfhK
at nine; um neun Uhr, um neun; pfhK
at half past eight; um halb neun; pfhK
"""

PLACES = """
in the supermarket; im Supermarkt
at the market; auf dem Markt
in town; in der Stadt
in the garden; im Garten
on the balcony; auf dem Balkon
in bed; im Bett
on the train; im Zug
in the car; im Auto
in the kitchen; in der Küche
in the living room; im Wohnzimmer
in the restaurant; im Restaurant
in the café; im Café
at home; zu Hause, daheim
in the park; im Park
in the forest; im Wald
in the lake; im See
in the sea; im Meer
at the station; am Bahnhof
at the cinema; im Kino
in the office; im Büro
in the hospital; im Krankenhaus
in Berlin; in Berlin
in Hamburg; in Hamburg
in Munich; in München
in Vienna; in Wien
in Switzerland; in der Schweiz
on the table; auf dem Tisch
on the chair; auf dem Stuhl
on the bed; auf dem Bett
on the table^; auf den Tisch
on the chair^; auf den Stuhl
on the bed^; auf das Bett
to Berlin; nach Berlin
to Hamburg; nach Hamburg
to Munich; nach München
to Vienna; nach Wien
to Italy; nach Italien
to Spain; nach Spanien
to Switzerland; in die Schweiz
to the sea; ans Meer
to the mountains; in die Berge
into town; in die Stadt
to the station; zum Bahnhof
to the cinema; ins Kino
to the theatre; ins Theater
to the doctor; zum Arzt
to the park; in den Park
to the market; auf den Markt, zum Markt
to the swimming pool; ins Schwimmbad
to the bakery; zum Bäcker, in die Bäckerei
to the post office; zur Post
to the party; auf die Party, zur Party
to bed; ins Bett
to work; zur Arbeit
to dinner; zum Abendessen
from the station; vom Bahnhof
from the airport; vom Flughafen
from school; von der Schule
from holiday; aus dem Urlaub
from Berlin; aus Berlin
from Hamburg; aus Hamburg
by train; mit dem Zug, mit der Bahn
by car; mit dem Auto, mit dem Wagen
by bus; mit dem Bus
by bike; mit dem Fahrrad, mit dem Rad
"""
