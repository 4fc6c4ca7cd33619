package pinset

// Code is what became of a command.
type Code uint8

// Numbers are part of states, and append-only.
const (
	// OK: it is done. An expire that found nothing due is done, too.
	OK Code = iota + 1
	// Conflict: the binding or pin is not the one that a pin or unpin expects, or
	// an epoch is not the next one. Result.Current and Binding are what is there:
	// look at it, and decide whether to ask again.
	Conflict
	// Denied: By may not do that, the group would be left without an admin, or who
	// issued the token of a join is no admin any more. Asking again does not help.
	Denied
	// NotFound: the name, pin, member or granted role is not there.
	NotFound
	// TokenUnknown: the token was never issued, was withdrawn, or expired so long
	// ago that it was dropped.
	TokenUnknown
	// TokenUsed: somebody joined by the token, maybe the same peer.
	TokenUsed
	// TokenExpired: the token's time ended at or before the command's At.
	TokenExpired
	// Exists: the group is founded, the peer is a member or has the role, or the
	// token is known already. A token is not consumed by that.
	Exists
	// Invalid: a field is missing or beyond its limit, the state is full, a content
	// is pinned with another size or kind, or the group is not founded yet.
	Invalid
)

var codeWords = words[Code]{"", "ok", "conflict", "denied", "not_found", "token_unknown",
	"token_used", "token_expired", "exists", "invalid"}

func (c Code) String() string                { return codeWords.text(c) }
func (c Code) MarshalText() ([]byte, error)  { return codeWords.marshal(c) }
func (c *Code) UnmarshalText(b []byte) error { return codeWords.unmarshal(c, b) }

// Result is the answer to a command. With every code but OK the command has
// changed nothing.
type Result struct {
	Code  Code
	Index uint64 // log index of the command, of the first one when it was repeated
	Text  string // why it was refused, one line; "" with OK

	// Of a Conflict: the log index at which what is there now was made, which a
	// second try can expect, 0 for nothing; and the binding, nil where there is
	// none or no name was given; it is not to be changed. Of an epoch, Current is
	// the epoch.
	Current uint64
	Binding *Binding

	// Of Expire: how many pins and tokens were dropped, and whether more are due.
	Dropped int
	More    bool

	// Of Mark: this member's state differs from that of the leader at the mark
	// before. It is the one thing that members may answer differently, and is
	// false when repeated, or when another mark came between: then nothing was
	// compared. Which of the two is wrong can't be known here.
	Differs bool
}

// outcome is the part of a Result that is kept.
type outcome struct {
	code    Code
	reason  reason
	current uint64
	binding *Binding
	dropped int
	more    bool
}

func (x *session) result() Result {
	o := done
	if x.outcome != nil {
		o = *x.outcome
	}
	return Result{Code: o.code, Index: x.index, Text: reasonTexts[o.reason],
		Current: o.current, Binding: o.binding, Dropped: o.dropped, More: o.more}
}

var done = outcome{code: OK}

func refuse(code Code, why reason) outcome { return outcome{code: code, reason: why} }

// reason is why a command was refused. Numbers are part of states and append-only;
// the texts are not part.
type reason uint8

const (
	noReason reason = iota
	notFounded
	isFounded
	needsAdmin
	needsWriter
	needsVoter
	lastAdmin
	boundOtherwise
	pinnedOtherwise
	contentDiffers
	nameUnbound
	notPinned
	notMember
	isMember
	roleGranted
	roleNotGranted
	tokenUnknown
	tokenUsed
	tokenExpired
	tokenExists
	issuerGone
	tooManyNamesOfPin
	tooManyPins
	tooManyNames
	tooManyMembers
	tooManyPeers
	tooManyTokens
	otherEpoch
)

var reasonTexts = [...]string{
	noReason:          "",
	notFounded:        "the group is not founded yet",
	isFounded:         "the group is founded already",
	needsAdmin:        "only an admin may do that",
	needsWriter:       "only a writer may do that",
	needsVoter:        "only a voter may do that",
	lastAdmin:         "the group would be left without an admin",
	boundOtherwise:    "the name's binding is not the expected one",
	pinnedOtherwise:   "the content's pin is not the expected one",
	contentDiffers:    "the content is pinned with another size or kind",
	nameUnbound:       "nothing is bound to the name",
	notPinned:         "the content is not pinned",
	notMember:         "the peer is not a member",
	isMember:          "the peer is a member already",
	roleGranted:       "the peer has that role already",
	roleNotGranted:    "the role was not granted to the peer",
	tokenUnknown:      "the token is unknown: never issued, withdrawn, or long expired",
	tokenUsed:         "the token was used already",
	tokenExpired:      "the token has expired",
	tokenExists:       "the token is in the group already",
	issuerGone:        "who issued the token is not an admin any more",
	tooManyNamesOfPin: "the content has too many names",
	tooManyPins:       "the group has too many pins",
	tooManyNames:      "the group has too many names",
	tooManyMembers:    "the group has too many members",
	tooManyPeers:      "too many peers have a role",
	tooManyTokens:     "the group has too many tokens: withdraw some",
	otherEpoch:        "the epoch is not the next one",
}
