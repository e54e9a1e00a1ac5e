package policy

import (
	"fmt"
	"strings"
)

// Words say a policy in English, for people who decide whether to approve it. They
// follow the text part by part and leave nothing out; what they have no word for
// stands as it is written. The text is what judges, never the words.

// Words is one sentence for a policy. A clause that doesn't parse stands as it is.
func (p Policy) Words() string {
	var b strings.Builder
	if p.Effect == Allow {
		b.WriteString("may sign")
	} else {
		b.WriteString("may never sign")
	}
	switch said := words(p.Condition, p.Lang); {
	case p.Condition == "" || said == "true":
		b.WriteString(" anything that is understood")
	default:
		b.WriteString(" when " + said)
	}
	if p.Consensus != "" {
		b.WriteString("; needs approvals: " + words(p.Consensus, p.Lang))
	}
	if p.Time != "" {
		b.WriteString("; at times when " + words(p.Time, p.Lang))
	}
	if p.OneTime {
		b.WriteString("; once")
	}
	if p.Replace {
		b.WriteString("; also in place of one with the same nonce and lower fees")
	}
	if !p.NotAfter.IsZero() {
		b.WriteString("; until " + p.NotAfter.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return b.String()
}

func words(clause, lang string) string {
	if clause == "" {
		return ""
	}
	n, err := parse(clause, lang)
	if err != nil {
		return clause
	}
	return n.words(clause, nil)
}

// called are the words for what policies read most.
var called = map[string]string{
	"eth.tx.to": "the recipient", "eth.tx.value": "the value in wei", "eth.tx.chain_id": "the chain id", "eth.tx.data": "the call data",
	"eth.tx.nonce": "the nonce", "eth.tx.gas": "the gas limit", "eth.tx.gas_price": "the gas price in wei", "eth.tx.type": "the transaction's type",
	"eth.tx.function_name": "the function called", "eth.tx.function_signature": "the selector called", "eth.tx.max_fee_per_gas": "the highest fee per gas in wei",
	"eth.eip_712.primary_type": "the typed data's type", "eth.eip_712.domain.verifying_contract": "the contract that verifies the typed data",
	"eth.eip_712.domain.name": "the typed data's domain name", "eth.eip_712.domain.chain_id": "the typed data's chain id",
	"solana.tx.transfers": "SOL transfers", "solana.tx.spl_transfers": "token transfers", "solana.tx.instructions": "instructions",
	"solana.tx.program_keys": "programs", "solana.tx.account_keys": "accounts", "solana.tx.address_table_lookups": "address table lookups",
	"time.now": "the time", "wallet.id": "the wallet", "wallet_account.address": "the wallet's address",
	"activity.kind": "the kind of activity", "activity.type": "the type of activity",
	"amount": "amount", "to": "recipient", "from": "sender", "token_mint": "token", "program_key": "program",
}

var compared = map[op]string{
	opEqual: "is", opNotEqual: "is not", opLess: "is less than", opLessEqual: "is at most",
	opGreater: "is more than", opGreaterEqual: "is at least", opIn: "is one of",
}

// words renders a tree; items are the variables of all, any and filter around it.
func (n *node) words(src string, items map[string]string) string {
	kid := func(i int) string { return n.kids[i].words(src, items) }
	switch n.op {
	case opAnd, opOr:
		return grouped(n, 0, src, items) + map[op]string{opAnd: " and ", opOr: " or "}[n.op] + grouped(n, 1, src, items)
	case opNot:
		return "not (" + kid(0) + ")"
	case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual, opIn:
		return kid(0) + " " + compared[n.op] + " " + kid(1)
	case opName, opField:
		return n.pathWords(src, items)
	case opIndex:
		return "item " + kid(1) + " of " + kid(0)
	case opSlice:
		return kid(0) + " from " + kid(1) + " to " + kid(2)
	case opMethod:
		return n.methodWords(src, items)
	case opList:
		all := make([]string, len(n.kids))
		for i := range n.kids {
			all[i] = kid(i)
		}
		return strings.Join(all, ", ")
	}
	return src[n.pos:n.end]
}

// grouped puts parentheses around an "or" inside an "and", and the other way round.
func grouped(n *node, i int, src string, items map[string]string) string {
	k := n.kids[i]
	said := k.words(src, items)
	if (k.op == opAnd || k.op == opOr) && k.op != n.op {
		return "(" + said + ")"
	}
	return said
}

func (n *node) pathWords(src string, items map[string]string) string {
	var names []string
	at := n
	for ; at.op == opField; at = at.kids[0] {
		names = append([]string{at.text}, names...)
	}
	if at.op != opName {
		return at.words(src, items) + "." + strings.Join(names, ".")
	}
	whole := strings.Join(append([]string{at.text}, names...), ".")
	if said := called[whole]; said != "" && len(names) > 0 {
		return said
	}
	if item := items[at.text]; item != "" {
		for i, name := range names {
			if said := called[name]; said != "" {
				names[i] = said
			}
		}
		if len(names) == 0 {
			return item
		}
		return "its " + strings.Join(names, ".")
	}
	return whole
}

func (n *node) methodWords(src string, items map[string]string) string {
	base := n.kids[0].words(src, items)
	arg := func(i int) string { return n.kids[i].words(src, items) }
	switch {
	case n.text == "count" && len(n.kids) == 1:
		return "the number of " + base
	case n.text == "contains" && len(n.kids) == 2:
		return base + " contains " + arg(1)
	case len(n.kids) == 3 && n.kids[1].op == opName && (n.text == "all" || n.text == "any" || n.text == "filter"):
		inner := map[string]string{n.kids[1].text: "it"}
		for name, said := range items {
			inner[name] = said
		}
		said := n.kids[2].words(src, inner)
		switch n.text {
		case "all":
			return "for each of the " + base + ": " + said
		case "any":
			return "for one or more of the " + base + ": " + said
		}
		return base + " of which " + said
	}
	return src[n.pos:n.end]
}

// Words is one sentence for a limit; amounts are in the asset's smallest unit.
func (l Limit) Words() string {
	var most []string
	if !l.AnyAmount {
		most = append(most, fmt.Sprintf("spend at most %s of %s", l.Max.Dec(), l.Asset))
	}
	switch {
	case l.MaxCount > 0 && l.Asset == "":
		most = append(most, fmt.Sprintf("sign at most %d requests", l.MaxCount))
	case l.MaxCount > 0:
		most = append(most, fmt.Sprintf("sign at most %d requests that spend %s", l.MaxCount, l.Asset))
	}
	what := "may " + strings.Join(most, " and ")
	if l.Control {
		what = "refuses nothing by itself, counts for its conditions: " + strings.TrimPrefix(what, "may ")
	}
	if l.Window > 0 {
		what += " in any " + l.Window.String()
	} else {
		what += " in all"
	}
	if l.Per != PerAll {
		what += " for each " + string(l.Per)
	}
	if l.IncludeFees {
		what += ", network fees included"
	}
	return what
}

// Words is one sentence for a template of orders.
func (t Template) Words() string {
	said := fmt.Sprintf("may open orders, each for one transaction, when %s", t.Condition)
	for _, p := range t.Parameters {
		if len(p.OneOf) > 0 {
			said += fmt.Sprintf("; ${%s} is one of %s", p.Name, strings.Join(p.OneOf, ", "))
		} else {
			said += fmt.Sprintf("; ${%s} is from %s to %s", p.Name, p.Min, p.Max)
		}
	}
	return said
}
