/**
 * One CloudEvent (https://cloudevents.io, 1.0.2) as a command: from its JSON form, or from the headers of a request whose body is
 * its data.
 *
 *   type → command type · subject → key, where the definition names none · source and id → idempotency key
 *   traceparent → trace · all attributes → what the handler finds in `command.cloudEvent`
 */
import type { Submission } from '../commands/submission.ts'
import type { CloudEventContext } from '../contracts/cloud-event.ts'
import { MillraceError } from '../contracts/errors.ts'
import { parseJson } from './bulk-body.ts'
import { RFC_3339 } from './delivery.ts'
import { mediaOf } from './media-type.ts'
import { decodeMsgpack } from './msgpack-body.ts'
import { checkPayload, isForbiddenKey } from './payload-limits.ts'
import { utf8Text } from './utf8-text.ts'

type Attributes = Readonly<Record<string, unknown>>

const SPEC_VERSION = '1.0'
/** Of the attributes of the specification, all texts. */
const NAMED = ['specversion', 'type', 'id', 'source', 'subject', 'time', 'dataschema', 'datacontenttype']
const EXTENSION_NAME = /^[a-z0-9]+$/
const EXTENSIONS_MAX = 50
/** Of all attributes together: they are stored with the command. */
const CONTEXT_CHARS_MAX = 8192
const DATA = 'data'
const DATA_BASE64 = 'data_base64'

/**
 * From the JSON form; `trace` is what the request says for events without a trace of their own.
 *
 * @throws MillraceError `command.malformed` for another version of the specification, else `command.invalid`
 */
export function readJsonEvent(value: unknown, trace: string | undefined): Submission {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('A CloudEvent is an object with "specversion", "id", "source" and "type".')
  }
  const { [DATA]: data, [DATA_BASE64]: base64, ...attributes } = value as Attributes
  const context = readContext(attributes)
  if (data !== undefined && base64 !== undefined && base64 !== null) {
    throw invalid('A CloudEvent has "data" or "data_base64", not both.')
  }
  const payload =
    base64 === undefined || base64 === null
      ? ofJson(data, context.datacontenttype)
      : ofBytes(fromBase64(base64), context.datacontenttype)
  return toSubmission(attributes['type'] as string, context, payload, trace)
}

/**
 * From headers and body, in binary mode.
 *
 * @throws MillraceError `command.malformed` for headers, `command.invalid`, `command.malformed` for the data
 */
export function readBinaryEvent(headers: Headers, body: Buffer, trace: string | undefined): Submission {
  const attributes = readBinaryAttributes(headers)
  const context = readContext(attributes)
  const payload = body.length === 0 ? undefined : ofBytes(body, context.datacontenttype)
  return toSubmission(attributes['type'] as string, context, payload, trace)
}

/**
 * What a `ce-` header says (HTTP binding, 3.1.3.2): quotes first, then one round of percent-decoding.
 *
 * @throws MillraceError `command.malformed`
 */
export function decodeEventHeader(name: string, value: string): string {
  const quoted = /^"((?:[^"\\]|\\.)*)"$/.exec(value)?.[1]
  const plain = quoted === undefined ? value : quoted.replace(/\\(.)/g, '$1')
  if (/^[\x20-\x7e]*$/.test(plain)) {
    try {
      return decodeURIComponent(plain)
    } catch {
      // Told below.
    }
  }
  throw new MillraceError(
    'command.malformed',
    `The header ${name} must be printable ASCII, all else percent-encoded as UTF-8, "%" as "%25".`,
  )
}

function readBinaryAttributes(headers: Headers): Attributes {
  const attributes: Record<string, unknown> = {}
  headers.forEach((value, name) => {
    if (!name.startsWith('ce-')) return
    const attribute = name.slice(3)
    if (attribute === 'datacontenttype' || attribute === DATA || !EXTENSION_NAME.test(attribute)) {
      throw new MillraceError(
        'command.malformed',
        `There is no header "${name.slice(0, 80)}" for a CloudEvent: behind "ce-" stand lower-case letters and digits, the data is the body, and its type the Content-Type.`,
      )
    }
    attributes[attribute] = decodeEventHeader(name, value)
  })
  const contentType = headers.get('content-type')
  return contentType === null ? attributes : { ...attributes, datacontenttype: contentType }
}

/** Null is the same as not there. */
function readContext(attributes: Attributes): CloudEventContext {
  const { specversion } = attributes
  if (specversion !== SPEC_VERSION) {
    const given = typeof specversion === 'string' ? `"${specversion.slice(0, 20)}"` : 'none'
    throw new MillraceError(
      'command.malformed',
      `CloudEvents are taken in "specversion" ${SPEC_VERSION}; this one has ${given}.`,
    )
  }
  const required = (name: string): string => {
    const text = textOf(attributes, name)
    if (text !== undefined) return text
    throw invalid(`A CloudEvent needs "${name}".`)
  }
  required('type')
  const time = textOf(attributes, 'time')
  if (time !== undefined && !(RFC_3339.test(time) && Number.isFinite(Date.parse(time)))) {
    throw invalid('"time" must be a time such as "2030-01-31T08:00:00Z" (RFC 3339).')
  }
  const context = {
    id: required('id'),
    source: required('source'),
    subject: textOf(attributes, 'subject'),
    time,
    dataschema: textOf(attributes, 'dataschema'),
    datacontenttype: textOf(attributes, 'datacontenttype'),
    extensions: readExtensions(attributes),
  }
  if (JSON.stringify(context).length <= CONTEXT_CHARS_MAX) return context
  throw new MillraceError(
    'command.too-large',
    `The attributes of the CloudEvent have more than ${CONTEXT_CHARS_MAX} characters.`,
  )
}

function textOf(attributes: Attributes, name: string): string | undefined {
  const value = attributes[name]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string' && value !== '' && isAllowed(value)) return value
  throw invalid(`"${name}" must be a text that is not empty, without control characters.`)
}

/** No control characters, no halves of pairs (CloudEvents 1.0.2, type system). */
function isAllowed(text: string): boolean {
  return !/\p{Cc}/u.test(text) && text.isWellFormed()
}

function readExtensions(attributes: Attributes): Readonly<Record<string, string | number | boolean>> {
  const extensions: Record<string, string | number | boolean> = {}
  let count = 0
  for (const [name, value] of Object.entries(attributes)) {
    if (NAMED.includes(name) || value === null || value === undefined) continue
    if (!EXTENSION_NAME.test(name) || isForbiddenKey(name)) {
      throw invalid(
        `"${name.slice(0, 40)}" is no name for an attribute of a CloudEvent: use lower-case letters and digits.`,
      )
    }
    count += 1
    if (count > EXTENSIONS_MAX) throw invalid(`A CloudEvent may have ${EXTENSIONS_MAX} extension attributes.`)
    const isText = typeof value === 'string' && isAllowed(value)
    if (!isText && typeof value !== 'boolean' && !Number.isInteger(value)) {
      throw invalid(`"${name.slice(0, 40)}" must be a text, a whole number, true or false.`)
    }
    extensions[name] = value as string | number | boolean
  }
  return extensions
}

function toSubmission(
  type: string,
  context: CloudEventContext,
  payload: unknown,
  trace: string | undefined,
): Submission {
  const { traceparent } = context.extensions
  return {
    type,
    payload,
    idempotencyKey: eventKey(context),
    trace: typeof traceparent === 'string' ? traceparent : trace,
    cloudEvent: context,
  }
}

/** Of source and id, whatever their lengths: two events have one key only if both are equal. */
function eventKey({ source, id }: Pick<CloudEventContext, 'source' | 'id'>): string {
  const digest = new Bun.CryptoHasher('sha256').update(JSON.stringify([source, id])).digest('base64url')
  return `ce:${digest}`
}

/** `data` is a JSON value where the content type says so, or says nothing. */
function ofJson(data: unknown, contentType: string | undefined): unknown {
  if (data !== undefined && !isJson(contentType)) throw unsupported(contentType)
  checkPayload(data)
  return data
}

function ofBytes(bytes: Buffer, contentType: string | undefined): unknown {
  if (isJson(contentType)) {
    const payload = parseJson(utf8Text(bytes))
    checkPayload(payload)
    return payload
  }
  if (mediaOf(contentType ?? null) === 'msgpack') return decodeMsgpack(bytes)
  throw unsupported(contentType)
}

/** True for what the data of an event may be; nothing at all is JSON. */
export function isDataType(contentType: string | undefined): boolean {
  return isJson(contentType) || mediaOf(contentType ?? null) === 'msgpack'
}

/** `…/json` and `…+json` (JSON format, 3.1.1). */
function isJson(contentType: string | undefined): boolean {
  if (contentType === undefined || mediaOf(contentType) === 'json') return true
  const [name = '', ...parameters] = contentType.toLowerCase().split(';')
  return (
    /^[\w.+-]+\/(?:[\w.+-]+\+)?json\s*$/.test(name.trim()) &&
    mediaOf(['application/json', ...parameters].join(';')) === 'json'
  )
}

function unsupported(contentType: string | undefined): MillraceError {
  return invalid(
    `"datacontenttype" ${JSON.stringify((contentType ?? 'none').slice(0, 80))} is not taken: send JSON, or application/vnd.msgpack in "data_base64" or as the body.`,
  )
}

function fromBase64(value: unknown): Buffer {
  if (typeof value === 'string' && /^[A-Za-z0-9+/]*={0,2}$/.test(value) && value.length % 4 === 0) {
    return Buffer.from(value, 'base64')
  }
  throw invalid('"data_base64" must be base64.')
}

function invalid(sentence: string): MillraceError {
  return new MillraceError('command.invalid', sentence)
}
