// The page: sections, and what the peer tells all of them.

import { follow, one, onEnd, all } from './api.js'
import { $, alarm, setText } from './dom.js'
import { setAlias, setPetnames } from './text.js'
import * as shares from './shares.js'
import * as transfers from './transfers.js'
import * as find from './find.js'
import * as lan from './lan.js'
import * as links from './links.js'
import * as names from './names.js'
import * as groups from './groups.js'
import * as status from './status.js'

const sections = { shares, transfers, find, lan, names, groups, status }

function current() {
  const name = location.hash.slice(1)
  return sections[name] ? name : 'shares'
}

// go shows the section that the address names, and moves the focus there when a person went.
function go(moved) {
  const name = current()
  for (const link of document.querySelectorAll('nav a')) {
    const here = link.getAttribute('href') === '#' + name
    if (here) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  for (const other of Object.keys(sections)) $(other).hidden = other !== name
  if (moved) {
    scrollTo(0, 0)
    $(name + '-h').focus({ preventScroll: true })
  }
  document.title = $(name + '-h').textContent + ' · p2pshare'
  sections[name].shown?.()
}

onEnd(() => location.replace('/'))

async function start() {
  if (/^#[0-9a-f]{64}$/.test(location.hash)) history.replaceState(null, '', '/')
  for (const section of [...Object.values(sections), links]) section.start?.()
  $('skip').addEventListener('click', event => { // its address would be that of a section
    event.preventDefault()
    $(current() + '-h').focus()
  })
  addEventListener('hashchange', () => go(true))
  go(false)
  listen()
  const [now, book] = await Promise.all([one('status'), all('names')])
  const folder = now.folder ?? ''
  setPetnames(book)
  setAlias(now.peer_id, now.alias)
  setText($('alias'), now.alias ?? '')
  for (const element of document.querySelectorAll('.folder')) setText(element, folder || 'a folder that the setting folder names')
  for (const section of Object.values(sections)) section.known?.({ folder })
}

function listen() {
  follow({
    line(on) {
      $('line').classList.toggle('on', on)
      setText($('line'), on ? 'running' : 'not reached')
    },
    hello() { lan.clear() },
    transfers: transfers.update,
    shares: shares.changed,
    neighbor: lan.update,
    groups: groups.update,
    pins: groups.pinsNow,
    links: links.update,
  })
}

start().catch(alarm)
