/** What a listener's reference has to know of the process that serves it. */
export interface DocumentOptions {
  readonly version: string
  /** True when this listener asks for credentials. */
  readonly credentials: boolean
  /** True when this listener has rate limits. */
  readonly limited: boolean
}
