/** A Lua script imported `with { type: 'text' }` is the text of its file. */
declare module '*.lua' {
  const text: string
  export default text
}
