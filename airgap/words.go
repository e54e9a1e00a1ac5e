package airgap

import "strings"

// bytewords are the 256 words of BCR-2020-012, four letters each: no two begin and
// end alike, and none is easily heard as another.
const bytewords = "" +
	"ableacidalsoapexaquaarchatomauntawayaxisbackbaldbarnbeltbetabiasbluebodybragbrewbulbbuzz" +
	"calmcashcatschefcityclawcodecolacookcostcruxcurlcuspcyandarkdatadaysdelidicedietdoordown" +
	"drawdropdrumdulldutyeacheasyechoedgeepicevenexamexiteyesfactfairfernfigsfilmfishfizzflap" +
	"flewfluxfoxyfreefrogfuelfundgalagamegeargemsgiftgirlglowgoodgraygrimgurugushgyrohalfhang" +
	"hardhawkheathelphighhillholyhopehornhutsicedideaidleinchinkyintoirisironitemjadejazzjoin" +
	"joltjowljudojugsjumpjunkjurykeepkenokeptkeyskickkilnkingkitekiwiknoblamblavalazyleaflegs" +
	"liarlimplionlistlogoloudloveluaulucklungmainmanymathmazememomenumeowmildmintmissmonknail" +
	"navyneednewsnextnoonnotenumbobeyoboeomitonyxopenovalowlspaidpartpeckplaypluspoempoolpose" +
	"puffpumapurrquadquizraceramprealredorichroadrockroofrubyruinrunsrustsafesagascarsetssilk" +
	"skewslotsoapsolosongstubsurfswantacotasktaxitenttiedtimetinytoiltombtoystriptunatwinugly" +
	"undouniturgeuservastveryvetovialvibeviewvisavoidvowswallwandwarmwaspwavewaxywebswhatwhen" +
	"whizwolfworkyankyawnyellyogayurtzapszerozestzinczonezoom"

// checksumWords are enough that nobody finds a second request with the words of a
// given one: 80 bits. Ten is what a person reads out without losing the place.
const checksumWords = 10

// Words spells the first ten bytes of a digest, five words and five words. Two
// people who read the same words hold the same request.
func Words(digest [32]byte) string {
	var all []string
	for _, b := range digest[:checksumWords] {
		all = append(all, byteword(b))
	}
	return strings.Join(all[:5], " ") + "  " + strings.Join(all[5:], " ")
}

func byteword(b byte) string { return bytewords[4*int(b) : 4*int(b)+4] }

// minimal spells bytes by first and last letter of their words.
func minimal(b []byte) string {
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		w := byteword(c)
		out = append(out, w[0], w[3])
	}
	return string(out)
}

// unspell reads what minimal wrote; false for anything else.
func unspell(s string) ([]byte, bool) {
	if len(s)%2 != 0 {
		return nil, false
	}
	out := make([]byte, 0, len(s)/2)
	for i := 0; i < len(s); i += 2 {
		b, ok := letters[[2]byte{s[i], s[i+1]}]
		if !ok {
			return nil, false
		}
		out = append(out, b)
	}
	return out, true
}

// letters finds a byte by the first and last letter of its word.
var letters = func() map[[2]byte]byte {
	m := make(map[[2]byte]byte, 256)
	for i := range 256 {
		w := byteword(byte(i))
		m[[2]byte{w[0], w[3]}] = byte(i)
	}
	return m
}()
