package e2e

import "flag"

var long = flag.Bool("long", false, "run the long versions of the tests that have one: minutes each")
