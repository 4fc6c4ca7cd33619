package control

import (
	"github.com/p2pshare/p2pshare/share"
)

// ParseWhat reads what a person asks for, as literal name or in any form. A
// group is not found yet: this peer follows none.
func ParseWhat(what string, literal bool) (share.What, error) {
	if literal {
		return share.ParseLiteral(what)
	}
	w, err := share.ParseWhat(what)
	if err != nil {
		return share.What{}, err
	}
	if w.Group != "" {
		return share.What{}, Errorf(CodeNotFound, "this node follows no group called %q", w.Group).
			WithHint("for a file whose name looks like that: --literal")
	}
	return w, nil
}
