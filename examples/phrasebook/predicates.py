"""What people do in the phrasebook: each verb with the objects, places and goals that suit it.

Columns: English verb (`base/past rest`); German verbs, the usual one first (`|` after a separable
prefix, `[...]` a complement that stands last, `@x` a preposition and the case it takes, for the
object); articles and objects (a: a or an, t: the, p: a possessive that agrees with the subject);
places; goals; flags. Flags:

    p f h n s   tenses: past, future, habit, now, lasting state
    d j c       modal verbs: duty (have to, should), joy (want to, would like to), can
    k y         children do it too; not for old people
    C           can be done with somebody
    1 2         vehicles: far (train, car, bus), near (bike, bus, car)
    K L         always at a clock time; always with a place
    R P         a recipient; a person in the dative in place of the object
    m           the object can be me, us or you
    i           can be asked of somebody: "Please ...", "Can you please ...?"
    l           "I like ..." makes sense
    w           "What ...?" makes sense
    +           is never negated
    q b         done in a moment, so not "last week"; a big step, so not "later"
    e v         lasts some hours, so not "later" or "last week"; not done in the morning
    F           something for free time
    S A         for bad weather; for good weather
    H T U       when hungry; when thirsty; when tired
"""

PREDICATES = """
buy/bought; kaufen; a: bread, milk, cheese, apples, potatoes, vegetables, fruit, eggs
    ; in the supermarket, at the market; ; pfhdcw
buy/bought; kaufen; a: coat, dress, shirt, jacket, shoes, bag; in town; ; pfjcwC
buy/bought; kaufen; a: car, bike, computer, phone, sofa, table, lamp, house, flat; ; ; pfjwb
sell/sold; verkaufen; p: car, bike, house, flat, computer, sofa; ; ; pfdjb
need; brauchen, benötigen; a: coat, jacket, shoes, car, bike, computer, phone, umbrella, table, bag
    ; ; ; s
eat/ate; essen; a: bread, cheese, apples, piece of cake
    ; in the kitchen, at home, on the balcony; ; pfhnjlwkHq
eat/ate; essen; a: fish, salad, potatoes, pizza
    ; in the kitchen, in the restaurant, at home; ; pfhnjlwkHq
drink/drank; trinken; a: water, juice, milk, glass of water, glass of juice; in the kitchen
    ; ; pfhnjwkTq
drink/drank; trinken; a: coffee, tea, cup of coffee, cup of tea
    ; in the kitchen, in the café, on the balcony; ; pfhnjlwq
make/made; kochen; a: soup; ; ; pfndjCF
cook; kochen; a: fish, potatoes, vegetables; ; ; pfhndjlwCHF
bake; backen; a: cake, bread; ; ; pfndjlwCF
order; bestellen; a: pizza, soup, fish, salad; ; ; pfjwH
read/read; lesen; a: book; in bed, in the garden, on the train, on the balcony; ; pfnjwkSF
read/read; lesen; a: books; in bed, in the garden, on the train, on the balcony; ; hlkSF
read/read; lesen; t: newspaper; in bed, in the garden, on the train, in the kitchen; ; pfhnjl
write/wrote; schreiben; a: letter, email, postcard; ; ; pfndjR
send/sent; schicken; a: letter, email, parcel, postcard, photos; ; ; pfdjwR
give/gave; schenken; a: book, flowers, lamp, cake; ; ; pfjwR
show; zeigen; t: photos, flat, garden; ; ; pfjcR
clean; putzen, machen [sauber]; t: kitchen, bathroom, windows, flat; ; ; pfhndckC
tidy up; auf|räumen; t: kitchen, room, flat; ; ; pfhndicCF
repair; reparieren; t: car, bike, computer, washing machine, heating, television; ; ; pfndic
repair; reparieren; p: car, bike, computer; ; ; pfndc
wash; waschen; p: car; ; ; pfndc
wash; spülen, ab|waschen; t: dishes; ; ; pfhndik
look for; suchen; p: key, phone, bag, umbrella; ; ; pn+k
find/found; finden; p: key, phone, bag, umbrella; ; ; pk
lose/lost; verlieren; p: key, phone, bag, umbrella; ; ; p+k
forget/forgot; vergessen; p: key, phone, bag, umbrella; ; ; p+k
open; öffnen, auf|machen; t: window, door; ; ; piq
close; schließen, zu|machen; t: window, door; ; ; piq
turn on; ein|schalten, an|machen; t: light, radio, television, heating; ; ; piq
turn off; aus|schalten, aus|machen; t: light, radio, television, heating; ; ; piq
pay/paid; bezahlen; t: bill; ; ; pfdi
book; buchen; a: room, flight; ; ; pfdjc
pick up; ab|holen; p: parents, sister, brother, aunt, friends; ; from the station, from the airport
    ; pfdcmi
pick up; ab|holen; t: children; ; from school; pfhdic
call; an|rufen; p: parents, sister, brother, aunt, uncle, friends, boss; ; ; pfdjcmiF
visit; besuchen; p: grandmother, grandfather, aunt, uncle, friends, neighbours; ; ; pfdjckmiF
meet/met; treffen; p: friends, sister, brother, aunt; in the café, in the park, at the station
    ; ; pfjckF
invite; ein|laden; p: friends, neighbours, uncle, aunt; ; to the party, to dinner; pfdjmF
help; helfen; p: mother, father, sister, brother, neighbours; in the kitchen, in the garden
    ; ; pfhdcPkmiF
talk to; sprechen; @mit p: boss, parents, sister, brother, neighbours; ; ; pfdj
wait for; warten; @auf t: bus, train; at the station; ; pn
wait for; warten; @auf p: sister, brother, friends, aunt; at the station, in the café; ; pnmi
watch; sehen; a: film; at the cinema, at home; ; pfjwkCSF
watch; sehen; a: films; at the cinema, at home; ; hlkCSF
listen to; hören; a: music, the radio; in the kitchen, in the car, in the living room
    ; ; pfhnlkS
play; spielen; a: football; in the park, in the garden; ; pfhnjlkCAFy
play; spielen; a: tennis; in the park; ; pfhjlkCAF
play; spielen; a: cards, chess; in the kitchen, at home, on the balcony; ; pfhnjlkCSF
play; spielen; a: the piano, the guitar; in the living room; ; pfhnjlckS
study; lernen; a: German, English; at home; ; pfhndjlkC
take/took; nehmen; t: tablets; ; ; pfhdie
go/went; fahren; ; ; to Berlin, to Hamburg, to Munich, to Vienna, to the sea, to the mountains
    ; pfjdc1C
go/went; fahren; ; ; into town, to the station, to work; pfd2
go/went; gehen; ; ; to the cinema, to the swimming pool; pfhjckCF
go/went; gehen; ; ; to the theatre; pfhjckCFv
go/went; gehen; ; ; to the market, to the bakery; pfhdc
go/went; gehen; ; ; to the post office, to the doctor; pfdc
go/went; gehen; ; ; to the park; pfhjckCA
go/went; gehen; ; ; to the party; pfjckCFv
go/went; gehen; ; ; to bed; pfdKk+U
fly/flew; fliegen; ; ; to Italy, to Spain, to Switzerland, to Vienna; pfjC
live; wohnen, leben; ; in Berlin, in Hamburg, in Munich, in Vienna, in Switzerland; ; s
work; arbeiten; ; in the office, at home, in the garden, in the hospital; ; pfhndc
put/put; legen; t: book, newspaper, letter, phone, photos
    ; ; on the table^, on the chair^, on the bed^; piq
sleep/slept; schlafen; ; in the garden, in the living room, on the train; ; pLU
get/got up; auf|stehen; ; ; ; pfdKk+
stay at home; bleiben [zu Hause], bleiben [daheim]; ; ; ; pfhjdckSe
stay in bed; bleiben [im Bett]; ; ; ; pfhjkUe
come/came home; kommen [nach Hause]; ; ; ; pfK
come/came back; zurück|kommen; ; ; from holiday, from Berlin, from Hamburg; pfd
arrive; an|kommen; ; in Berlin, in Hamburg, at the station; ; pfK
go/went for a walk; gehen [spazieren]; ; in the park, in the forest, in town; ; pfhjlckCAF
go/went swimming; gehen [schwimmen], schwimmen; ; in the lake, in the sea; ; pfhjlckCAF
go/went shopping; gehen [einkaufen], ein|kaufen; ; in town; ; pfhdjcCF
watch TV; fern|sehen; ; in the living room, in bed; ; pfhnlkSe
have/had; haben; a: time; ; ; pf
have/had; haben; a: appointment; ; ; pf
have/had; haben; a: headache, fever; ; ; p
have/had; haben; a: cold; ; ; pb
"""

# Clauses that give a reason or a condition. `x > y` fixes the subject.
STATES = """
be tired; sein [müde]
be ill; sein [krank]
be hungry; haben [Hunger], sein [hungrig]
be thirsty; haben [Durst], sein [durstig]
have/had time; haben [Zeit]
have/had no time; haben [keine Zeit]
have/had to work; müssen [arbeiten]
it > rain; regnen
it > snow; schneien
it > be cold; sein [kalt]
it > be warm; sein [warm]
the sun > shine/shone; scheinen
the weather > be bad; sein [schlecht]
the weather > be nice; sein [schön]
"""
