// Groups: who is in them, what they have pinned, and how the copies are.

import { post, remove } from './api.js'
import { $, act, ask, button, h, keyed, opener, pages, setText, show, tell } from './dom.js'
import { ago, count, size, span, visible, who } from './text.js'

let groups = []
const pinned = new Map() // what each group has pinned, by its ID

export function update(now) {
  groups = now.groups
  if (!$('groups').hidden) shown()
}

export function pinsNow(now) {
  pinned.set(now.id, now)
  if (!$('groups').hidden) shown()
}

export function shown() {
  keyed($('groups-list'), groups.length ? groups : [{ none: true, id: 'none' }], g => g.id, g => g.none ? makeNone() : makeGroup(g))
}

function makeNone() {
  const form = h('form', { class: 'row', onsubmit: act(async event => {
    const made = await post('groups/create', { group: event.target.elements.group.value.trim() })
    show('@' + visible(made.group) + ' is made', h('p', {}, 'This peer is its first member. Should most members be lost for good, this key brings the group back. It is told only now: keep it where you keep passwords.'),
      h('p', { class: 'mono' }, made.recovery_key))
  }) }, h('label', { class: 'grow' }, 'Name of a new group', h('input', { name: 'group', required: true, autocomplete: 'off', placeholder: 'office' })),
    h('button', { class: 'main' }, 'Create'))
  const join = h('form', { class: 'row', onsubmit: act(async event => {
    await post('groups/join', { group: event.target.elements.as.value.trim(), token: event.target.elements.token.value.trim() })
    tell('This peer is in the group')
  }) }, h('label', { class: 'grow' }, 'Or the token of an invitation', h('input', { name: 'token', required: true, autocomplete: 'off', spellcheck: 'false' })),
    h('label', {}, 'Called here', h('input', { name: 'as', autocomplete: 'off', placeholder: 'office' })),
    h('button', {}, 'Join'))
  return { element: h('div', {}, h('p', {}, 'This peer is in no group. A group remembers names, and its members keep copies of what is pinned, whoever is off.'), form, join) }
}

function makeGroup(g) {
  const name = h('h2')
  const meta = h('p', { class: 'meta' })
  const wrong = h('p', { class: 'bad' })
  const members = h('ul', { class: 'list', 'aria-label': 'Members of ' + visible(g.group) })
  const pins = h('ul', { class: 'list', 'aria-label': 'Pins of ' + visible(g.group) })
  const form = h('form', { class: 'row', onsubmit: act(async event => {
    const field = event.target.elements.what
    const made = await post('pins', { what: field.value.trim(), group: g.group })
    tell(visible(field.value) + ' is pinned' + (made.unverified ? ', though its name is unverified, ' + visible(made.unverified) + ': the group stands for it from now on' : ''))
    field.value = ''
  }) }, h('label', { class: 'grow' }, 'Pin a share, or what has this name', h('input', { name: 'what', required: true, autocomplete: 'off', spellcheck: 'false' })),
    h('button', { class: 'main' }, 'Pin'))
  const inviting = button('Invite…', 'Invite somebody into ' + visible(g.group), () => invite(g))
  const more = h('p', { class: 'quiet' })
  const draw = () => pages(pins, pinned.get(g.id)?.pins ?? [], p => p.id + ' ' + p.name, p => makePin(g, p),
    pinned.has(g.id) ? 'Nothing is pinned.' : 'Asking the group…', draw, 50)
  return {
    element: h('div', {}, h('div', { class: 'item' }, h('div', { class: 'text' }, name, meta), h('div', { class: 'acts' }, inviting)),
      wrong, form, h('h3', { class: 'part' }, 'Pins'), h('div', {}, pins), more, h('h3', { class: 'part' }, 'Members'), members),
    update(now) {
      g = now
      setText(name, '@' + visible(g.group) + (g.follows ? ' (followed)' : ''))
      setText(meta, [count(g.members.length, 'member', 'members'), g.voters_up + ' of ' + count(g.voters, 'voter', 'voters') + ' up',
        'can lose ' + g.can_lose, g.leader ? 'led by ' + who(g.leader) : 'no leader', g.stale ? 'not up to date' : ''].filter(Boolean).join(' · '))
      const problems = [g.problem, g.hint, ...(g.warnings ?? [])].filter(Boolean).join(' — ')
      setText(wrong, problems)
      wrong.hidden = !problems
      wrong.className = g.problem ? 'bad' : 'warn'
      form.hidden = inviting.hidden = !!g.follows
      keyed(members, g.members, m => m.peer, makeMember)
      draw()
      const left = pinned.get(g.id)?.more
      more.hidden = !left
      setText(more, left ? 'and ' + count(left, 'pin', 'pins') + ' more: p2pshare pins --group ' + visible(g.group) + ' lists all' : '')
    },
  }
}

const roles = [['storage', 'keep copies'], ['voter', 'keep copies and vote'], ['writer', 'pin'], ['reader', 'read']]

// invite makes an invitation, which the person hands on.
async function invite(g) {
  const select = h('select', { name: 'answer' }, roles.map(([role, text]) => h('option', { value: role }, text)))
  const role = await ask('Invite somebody into @' + visible(g.group), '', 'Make an invitation', 'They shall', select)
  if (!role) return
  const made = await post('groups/invite', { group: g.group, role, ttl_s: 86400 })
  show('An invitation into @' + visible(g.group), h('p', {}, 'It is good for one peer and one day. There: p2pshare group join, and this token, or this page’s section Group.'),
    h('p', { class: 'mono token' }, made.token),
    h('p', {}, button('Copy', 'Copy the token', async () => { await navigator.clipboard.writeText(made.token); tell('The token is copied') })))
}

function makeMember(m) {
  const state = h('span', { class: 'tag' })
  const meta = h('p', { class: 'meta' })
  return {
    element: h('li', {}, h('h3', {}, who(m.peer) + (m.self ? ' (this peer)' : ''), state), meta),
    update(m) {
      setText(state, m.up ? 'up' : 'away')
      state.className = m.up ? 'tag ok' : 'tag bad'
      setText(meta, [m.vote, m.roles.replaceAll(',', ', '), m.lag ? m.lag + ' entries behind' : '', m.waiting].filter(Boolean).join(' · '))
    },
  }
}

const healths = { ok: 'ok', copying: '', degraded: 'warn', lost: 'bad', 'no room': 'warn' }

function makePin(g, p) {
  const title = visible(p.name) || p.id.slice(0, 15)
  const health = h('span', { class: 'tag' })
  const meta = h('p', { class: 'meta' })
  const bar = h('progress', { max: 1, 'aria-label': 'Copies of ' + title })
  const copies = h('ul', { class: 'copies', 'aria-label': 'Copies' })
  return {
    element: h('li', {}, h('div', { class: 'item' },
      h('div', { class: 'text' }, h('h3', {}, h('bdi', {}, title), health), bar, meta, copies),
      h('div', { class: 'acts' }, opener(p.id, p.name, title), !g.follows && button('Unpin', 'Unpin ' + title, async () => {
        if (!await ask('Unpin ' + title + '?', 'The group keeps no copies of it any more.', 'Unpin')) return
        await remove('pins', { what: p.name || p.id, group: g.group })
        tell(title + ' is pinned no longer')
      })))),
    update(now) {
      p = now
      setText(health, p.state)
      health.className = 'tag ' + (healths[p.health] ?? 'warn')
      bar.hidden = p.health !== 'copying' || !p.total
      if (p.total) bar.value = p.done / p.total
      setText(meta, [size(p.size), p.verified + ' of ' + count(p.wanted, 'copy', 'copies'), p.eta_s ? span(p.eta_s) + ' left' : '', p.remedy].filter(Boolean).join(' · '))
      const all = [...(p.copies ?? []).map(c => ({ ...c, there: true })), ...(p.absent ?? []).map(peer => ({ peer }))]
      keyed(copies, all, c => c.peer + ' ' + !!c.there, makeCopy)
    },
  }
}

function makeCopy(c) {
  const element = h('li', { class: c.there ? '' : 'gone' })
  return {
    element,
    update(c) {
      setText(element, c.there ? '✓ ' + who(c.peer) : who(c.peer) + ' is away')
      if (c.verified) element.title = 'verified ' + ago(c.verified)
    },
  }
}
