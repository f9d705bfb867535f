# The tiny guest: one boot sector that takes commands on the first serial port.
#
# It is up a fraction of a second after QEMU, also without KVM, and can end, break or wedge its machine in every
# way a test may want to see. Each line it gets is echoed as "echo: <line>"; a command is then acted upon:
#
#     ping        answers "pong"
#     exit N      ends QEMU through isa-debug-exit with status 2 * N + 1 (N: 0 to 127)
#     poweroff    ACPI power-off, as SeaBIOS sets it up on `-machine pc`
#     reboot      reset, through the keyboard controller
#     triple      reset, through a triple fault
#     panic       reports a guest panic to the pvpanic device, and goes on
#     flood       prints numbered lines for ever, as fast as it can
#     hang        halts with interrupts off: alive, and deaf to everything but a reset
#
# `make guest` rebuilds guest.bin from this file.

        .set    CR, 13
        .set    LF, 10

        .set    COM1, 0x3f8             # its registers, relative to it:
        .set    IER, 1                  #   what interrupts (with DLAB: the divisor's high byte)
        .set    FCR, 2                  #   FIFO control
        .set    LCR, 3                  #   word format, DLAB
        .set    MCR, 4                  #   modem lines
        .set    LSR, 5                  #   status: bit 0 "data is there", bit 5 "may send"

        .set    PIC_MASK, 0x21
        .set    PIC_COMMAND, 0x20
        .set    KEYBOARD, 0x64
        .set    DEBUG_EXIT, 0xf4
        .set    PVPANIC, 0x505
        .set    PM1A_CNT, 0x604

        .set    line, 0x8000            # the line being read, in memory that nothing else uses;
        .set    line_end, line + 4095   # what is longer is cut off here

        .code16
        .globl  _start
_start: ljmp    $0, $1f                 # BIOSes disagree about CS:IP; from here on every segment is 0
1:      xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $_start, %sp
        cld

        mov     $uart, %si              # set up COM1
1:      lodsw
        mov     $COM1 >> 8, %dh
        mov     %al, %dl
        mov     %ah, %al
        out     %al, %dx
        cmp     $uart_end, %si
        jb      1b

        movw    $wake, 4 * 0x0c         # IRQ 4, which is vector 0x0c, is COM1's
        movw    $0, 4 * 0x0c + 2
        in      $PIC_MASK, %al
        and     $~(1 << 4), %al
        out     %al, $PIC_MASK

        mov     $banner, %si
        call    print

prompt: mov     $prompt_text, %si
        call    print
        mov     $line, %di
read:   call    getc
        cmp     $CR, %al
        je      2f
        cmp     $LF, %al
        jne     1f
        cmp     $CR, %ah                # the second half of \r\n
        je      read
        jmp     2f
1:      cmp     $line_end, %di
        jae     read
        stosb
        jmp     read

2:      movb    $0, (%di)
        mov     $echo_text, %si
        call    print
        mov     $line, %si
        call    print
        mov     $newline, %si
        call    print

        mov     $commands, %si
1:      lodsb                           # the length of a command's name, 0 after the last
        cbw
        xchg    %ax, %cx
        jcxz    prompt
        mov     $line, %di
        repe cmpsb
        mov     %cx, %bx                # step over the rest of the name and load the handler;
        lea     (%bx, %si), %si         # none of this touches the flags
        lodsw
        jne     1b
        jmp     *%ax                    # %di: behind the name

ping:   mov     $pong_text, %si
        call    print
        jmp     prompt

exit:   xor     %ax, %ax
1:      mov     %al, %ah                # the number so far
        mov     (%di), %al
        inc     %di
        sub     $'0', %al
        cmp     $9, %al
        ja      2f
        aad                             # %al += 10 * %ah
        jmp     1b
2:      cmp     $256 - '0', %al         # the digits end with the line, or it was no number
        jne     prompt
        mov     %ah, %al
        out     %al, $DEBUG_EXIT
        jmp     prompt

panic:  mov     $PVPANIC, %dx
        mov     $1, %al
        out     %al, %dx
        jmp     prompt

flood:  xor     %ebx, %ebx
1:      mov     $flood_text, %si
        call    print
        mov     $8, %cx
2:      rol     $4, %ebx
        mov     %bl, %al
        and     $15, %al
        cmp     $10, %al                # the shortest way to a hexadecimal digit
        sbb     $0x69, %al
        das
        or      $0x20, %al
        call    putc
        loop    2b
        mov     $newline, %si
        call    print
        inc     %ebx
        jmp     1b

triple: lidt    no_idt
        int3

reboot: mov     $0xfe, %al
        out     %al, $KEYBOARD
        jmp     hang                    # the reset comes a moment later

poweroff:
        mov     $PM1A_CNT, %dx
        mov     $1 << 13, %ax           # SLP_EN, sleep type 0
        out     %ax, %dx
hang:   cli
1:      hlt
        jmp     1b

# Prints the text at %si, up to its NUL.
1:      call    putc
print:  lodsb
        test    %al, %al
        jnz     1b
        ret

# Sends %al. Input is not lost meanwhile: QEMU holds it back until somebody reads it.
putc:   push    %ax
        mov     $COM1 + LSR, %dx
1:      in      %dx, %al
        test    $1 << 5, %al
        jz      1b
        pop     %ax
        mov     $COM1 & 0xff, %dl
        out     %al, %dx
        ret

# Returns the next character in %al and the one before it in %ah. An idle guest sleeps and costs its host nothing.
getc:   mov     $COM1 + LSR, %dx
1:      cli
        in      %dx, %al
        test    $1 << 0, %al
        jnz     2f
        sti                             # takes effect after the next instruction: no wake-up is lost between them
        hlt
        jmp     1b
2:      sti
        mov     $COM1 & 0xff, %dl
        in      %dx, %al
        mov     %al, %ah
        xchg    %ah, previous
        ret

# COM1's interrupt only ends the sleep above.
wake:   push    %ax
        mov     $0x20, %al
        out     %al, $PIC_COMMAND
        pop     %ax
        iret

        .macro  set register, value
        .byte   (COM1 + \register) & 0xff, \value
        .endm
uart:   set     LCR, 0x80
        set     0, 1                    # divisor 1: 115200 baud
        set     IER, 0
        set     LCR, 3                  # 8N1
        set     FCR, 7
        set     MCR, 0x0b               # DTR, RTS, and OUT2, which lets the interrupt through
        set     IER, 1
uart_end:

# A name with its NUL is the whole line; one without begins it.
        .macro  command name, handler, as=.asciz
        .byte   2f - 1f
1:      \as     "\name"
2:      .word   \handler
        .endm
commands:
        command "ping", ping
        command "exit ", exit, .ascii
        command "poweroff", poweroff
        command "reboot", reboot
        command "triple", triple
        command "panic", panic
        command "flood", flood
        command "hang", hang
no_idt: .byte   0, 0, 0, 0, 0, 0        # also ends the list

previous:       .byte   0
banner:         .ascii  "vmfsm guest ready"
newline:        .asciz  "\r\n"
prompt_text:    .asciz  "> "
echo_text:      .asciz  "echo: "
pong_text:      .asciz  "pong\r\n"
flood_text:     .asciz  "flood "

        .org    510
        .word   0xaa55                  # a BIOS boots only what ends with this
