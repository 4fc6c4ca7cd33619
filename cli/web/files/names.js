// The trust book.

import { all, post } from './api.js'
import { $, act, ask, button, h, keyed, setText, tell } from './dom.js'
import { ago, setPetnames, shortPeer, visible, who } from './text.js'

export function start() {
  $('trust').addEventListener('submit', act(async event => {
    const form = event.target
    await post('names/trust', { who: form.who.value.trim(), petname: form.petname.value.trim() })
    tell('You trust ' + visible(form.petname.value))
    form.reset()
    await shown()
  }))
  $('block').addEventListener('submit', act(async event => {
    const form = event.target
    await post('names/block', { what: form.what.value.trim() })
    tell('It is blocked')
    form.reset()
    await shown()
  }))
}

// trust asks what to call a peer, and takes its word from then on.
export async function trust(peer, name) {
  const petname = await ask('Trust ' + name + '?', 'Its ID is ' + peer + '. Compare it with what p2pshare id prints there. Names it publishes are then believed.', 'Trust', 'Call it')
  if (!petname) return
  await post('names/trust', { who: peer, petname })
  tell('You trust ' + visible(petname))
  await shown()
}

// block asks, and then has nothing to do with a peer or a content any more.
export async function block(what, name) {
  const peer = !what.startsWith('b3:')
  if (!await ask('Block ' + name + '?', peer ? 'Nothing is got from ' + shortPeer(what) + ' or sent to it any more.' : 'It is neither got nor sent any more, whatever it is called.', 'Block')) return
  await post('names/block', { what })
  tell(name + ' is blocked')
  await shown()
}

export async function shown() {
  const book = await all('names')
  setPetnames(book)
  const of = kind => book.filter(e => e.kind === kind)
  keyed($('petnames'), of('petname'), e => e.peer + e.petname, row(e => visible(e.petname), e => e.peer,
    'Distrust', e => change('untrust', { who: e.peer }, 'Trust ' + visible(e.petname) + ' no longer?')), 'Nobody yet.')
  keyed($('choices'), of('choice'), e => e.name + (e.peer ?? '') + (e.id ?? ''), row(e => visible(e.name), e => [e.peer ? 'by ' + who(e.peer) : '', e.id].filter(Boolean).join(' · '),
    'Forget', e => change('forget', { name: e.name }, 'Forget what ' + visible(e.name) + ' is?')), 'None yet.')
  keyed($('blocks'), of('block'), e => e.peer ?? e.id, row(e => e.peer ?? e.id, () => '',
    'Unblock', e => change('unblock', { what: e.peer ?? e.id })), 'Nothing.')
  const damaged = of('damaged')
  $('damaged').hidden = !damaged.length
  setText($('damaged'), damaged.length ? 'The trust book could not be read and was put aside: ' + damaged.map(e => visible(e.path)).join(', ') : '')
}

const row = (title, about, verb, work) => e => {
  const meta = h('p', { class: 'meta mono' })
  return {
    element: h('li', {}, h('div', { class: 'item' },
      h('div', { class: 'text' }, h('h3', {}, h('bdi', {}, title(e)), e.mixed && h('span', { class: 'tag warn' }, 'mixes ' + e.mixed),
        e.like && h('span', { class: 'tag warn' }, 'looks like ' + visible(e.like))), meta),
      h('div', { class: 'acts' }, button(verb, verb + ' ' + title(e), () => work(e))))),
    update(now) { e = now; setText(meta, [about(e), e.since ? ago(e.since) : ''].filter(Boolean).join(' · ')) },
  }
}

async function change(op, request, question) {
  if (question && !await ask(question, '', 'Yes')) return
  await post('names/' + op, request)
  await shown()
}
