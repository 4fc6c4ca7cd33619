package control

import (
	"github.com/p2pshare/p2pshare/share"
)

// ParseWhat reads what a person asks for, as literal name or in any form.
func ParseWhat(what string, literal bool) (share.What, error) {
	if literal {
		return share.ParseLiteral(what)
	}
	return share.ParseWhat(what)
}
