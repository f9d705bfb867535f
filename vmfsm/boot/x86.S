# What an x86 accelerator has to run to count as working: a firmware of 512 bytes, at the end of its segment.
#
# From the reset vector through protected mode and, where the processor has it, paging and long mode, with a
# million writes to memory on the way. Then it ends QEMU: with status 85 through isa-debug-exit, or by a reset
# where there is no such device. An accelerator that emulates the first instructions and gets no further is
# found out by this.
#
# `make guest` rebuilds x86.bin from this file.

        .set    DEBUG_EXIT, 0xf4
        .set    STATUS, 42              # 2 * 42 + 1 is what QEMU exits with

        .set    BASE, 0xffe00           # where these bytes are
        .set    TABLES, 0x10000         # three page tables in RAM
        .set    COUNTER, 0x500
        .set    STACK, 0x8000

        .set    CR0_PE, 1 << 0
        .set    CR0_PG, 1 << 31
        .set    CR4_PAE, 1 << 5
        .set    EFER, 0xc0000080
        .set    EFER_LME, 1 << 8
        .set    CPUID_LM, 1 << 29

        .code16
        .globl  _start
_start: cli
        lgdtl   %cs:gdtr + BASE - 0xf0000
        mov     %cr0, %eax
        or      $CR0_PE, %al
        mov     %eax, %cr0
        ljmpl   $8, $protected + BASE

        .code32
protected:
        mov     $16, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $STACK, %esp

        mov     $1000000, %ecx
1:      mov     %ecx, COUNTER
        dec     %ecx
        jnz     1b

        mov     $0x80000000, %eax
        cpuid
        cmp     $0x80000000, %eax
        jbe     end                     # a processor without long mode
        mov     $0x80000001, %eax
        cpuid
        test    $CPUID_LM, %edx
        jz      end

        mov     $TABLES, %edi           # the first 2 MiB, where everything is, mapped to themselves
        xor     %eax, %eax
        mov     $3 * 1024, %ecx
        cld
        rep stosl
        movl    $TABLES + 0x1003, TABLES
        movl    $TABLES + 0x2003, TABLES + 0x1000
        movl    $0x83, TABLES + 0x2000

        mov     $CR4_PAE, %eax
        mov     %eax, %cr4
        mov     $TABLES, %eax
        mov     %eax, %cr3
        mov     $EFER, %ecx
        rdmsr
        or      $EFER_LME, %eax
        wrmsr
        mov     %cr0, %eax
        or      $CR0_PG, %eax
        mov     %eax, %cr0
        ljmp    $24, $long + BASE

        .code64
long:   mov     $1000000, %rcx
1:      mov     %rcx, COUNTER
        dec     %rcx
        jnz     1b

end:    mov     $STATUS, %eax           # from here on the same bytes in protected mode
        out     %eax, $DEBUG_EXIT
        push    $0                      # there is no such device: a triple fault, for want of interrupt gates
        push    $0
        lidt    (%rsp)
        int3

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 8: code, 32 bits
        .quad   0x00cf93000000ffff      # 16: data
        .quad   0x00af9b000000ffff      # 24: code, 64 bits
gdtr:   .word   . - gdt - 1
        .long   gdt + BASE

        .org    0x1f0                   # the reset vector
        .code16
        ljmp    $0xf000, $_start + BASE - 0xf0000
        .org    0x200
