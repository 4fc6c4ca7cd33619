// Elements. Text reaches the page through textContent alone.

export const $ = id => document.getElementById(id)

// h makes an element: h('p', {class: 'quiet', onclick: f}, 'text', another).
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children)
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.slice(2), value)
    else if (value === true) element.setAttribute(key, '')
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value)
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false && child !== '') element.append(child)
  }
  return element
}

// setText sets text where it differs: a screen reader speaks of what changes.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

// keyed keeps the children of a list in step with items. make(item) makes one, and returns
// {element, update}; it stays as long as its key is there, so that focus and selection do.
export function keyed(list, items, key, make, none) {
  const rows = list.rows ??= new Map()
  const keys = new Set(items.map(key))
  for (const [k, row] of rows) {
    if (keys.has(k)) continue
    if (row.element.contains(document.activeElement)) {
      const next = row.element.nextElementSibling ?? row.element.previousElementSibling
      const to = next?.querySelector('button') ?? list.closest('section')?.querySelector('h1')
      row.element.remove()
      to?.focus()
    } else row.element.remove()
    rows.delete(k)
  }
  list.querySelector(':scope > .none')?.remove()
  let before = list.firstElementChild
  for (const item of items) {
    const k = key(item)
    let row = rows.get(k)
    if (!row) rows.set(k, row = make(item))
    row.update?.(item)
    if (row.element === before) before = before.nextElementSibling
    else list.insertBefore(row.element, before)
  }
  if (!items.length && none) list.append(h('li', { class: 'none' }, none))
}

let fading
// tell says what has happened, to eyes and screen readers.
export function tell(text) {
  $('told').textContent = text
  clearTimeout(fading)
  fading = setTimeout(() => { $('told').textContent = '' }, 6000)
}

let calming
// alarm says what went wrong: an Error of the API, or any other.
export function alarm(error) {
  if (error.name === 'AbortError') return
  $('alarm').textContent = error.message + (error.hint ? ' — ' + error.hint : '')
  clearTimeout(calming)
  calming = setTimeout(() => { $('alarm').textContent = '' }, 12000)
}

// act makes a listener that does work and tells its error. Meanwhile the button is busy: a
// disabled one would lose the focus.
export function act(work) {
  return async event => {
    event.preventDefault()
    const button = event.submitter ?? event.currentTarget
    if (button.getAttribute('aria-busy')) return
    button.setAttribute('aria-busy', 'true')
    try {
      await work(event)
    } catch (error) {
      alarm(error)
    }
    button.removeAttribute('aria-busy')
  }
}

export function button(text, label, work) {
  return h('button', { type: 'button', 'aria-label': label, onclick: act(work) }, text)
}

// show opens the dialog. Its first button closes it.
export function show(title, ...children) {
  const dialog = $('dialog')
  dialog.replaceChildren(h('h2', { id: 'dialog-h' }, title), ...children.flat(),
    h('p', {}, h('button', { type: 'button', onclick: () => dialog.close() }, 'Close')))
  if (!dialog.open) dialog.showModal()
  return dialog
}

// ask opens the dialog with a question, and tells whether it was answered with yes.
export function ask(title, text, yes, field) {
  return new Promise(resolve => {
    const dialog = $('dialog')
    const input = field && h('input', { name: 'answer', required: true, autocomplete: 'off' })
    const form = h('form', { method: 'dialog', class: 'row', onsubmit: () => { dialog.returnValue = 'yes' } },
      field && h('label', { class: 'grow' }, field, input),
      h('button', { class: 'main', value: 'yes' }, yes),
      h('button', { type: 'button', onclick: () => dialog.close('no') }, 'Cancel'))
    dialog.returnValue = 'no'
    dialog.replaceChildren(h('h2', { id: 'dialog-h' }, title), text && h('p', {}, text) || '', form)
    dialog.addEventListener('close', () => {
      resolve(dialog.returnValue === 'yes' ? input ? input.value : true : null)
    }, { once: true })
    dialog.showModal()
  })
}
